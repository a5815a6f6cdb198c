"""In: the word lists of ``domains/*.yaml`` and ``words/*.yaml``, a seed. Out: endless training rows, frozen splits.

``ToolWorld`` is the built-in data: a generator of tools, of requests for them and of the calls that answer them.
"""

from toolformer.data.toolworld.world import ToolWorld

__all__ = ["ToolWorld"]

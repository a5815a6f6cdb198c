"""In: settings to change, if any. Out: the longer run on the built-in data, its results in this folder.

Run as ``python -m experiments.toolworld.run``.
"""

import sys

from experiments.record import record

if __name__ == "__main__":
    record("toolworld", sys.argv[1:])

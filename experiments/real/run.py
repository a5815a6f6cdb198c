"""In: the public sources (conf/corpus/real.yaml), settings to change. Out: the run on them, its results here.

Run as ``python -m experiments.real.run``. The sources have licences of their own (SGD is CC-BY-SA-4.0), so the
predictions are kept without their text: ids, gold tools, predicted calls and outcomes. With the corpus, the ids lead
back to it.
"""

import sys

from experiments.record import record
from experiments.sgd.run import without_text

if __name__ == "__main__":
    record("real", sys.argv[1:], without_text)

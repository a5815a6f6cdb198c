"""In: SGD's dialogues (``make data ARGS=corpus=sgd``), settings to change. Out: the run on them, its results here.

Run as ``python -m experiments.sgd.run``. The dialogues are CC-BY-SA-4.0 and this repository is not, so the predictions
are kept without their text: ids, gold tools, predicted calls and outcomes. With the corpus, the ids lead back to it.
"""

import sys
from typing import Any

from experiments.record import record

KEPT = ("id", "split", "variant", "decoding", "memory", "predicted", "malformed", "stratum", "truncated", "outcome")


def without_text(line: dict[str, Any]) -> dict[str, Any]:
    """A prediction without request, reply, and gold's arguments."""
    return {key: line[key] for key in KEPT if key in line} | {"gold": [call["name"] for call in line["gold"]]}


if __name__ == "__main__":
    record("sgd", sys.argv[1:], without_text)

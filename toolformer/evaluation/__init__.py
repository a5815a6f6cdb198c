"""In: a trained model and rows it never saw. Out: metrics.json and predictions.jsonl, with the controls beside them."""

from toolformer.evaluation.calibration import calibrate
from toolformer.evaluation.evidence import reads_gists
from toolformer.evaluation.run import evaluate

__all__ = ["calibrate", "evaluate", "reads_gists"]

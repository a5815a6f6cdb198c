"""In: rows of gold and predicted calls. Out: every number of an evaluation, with intervals.

Knows no text, no tokenizer and no model.
"""

from toolformer.metrics.intervals import bootstrap, mcnemar, paired_bootstrap, wilson
from toolformer.metrics.rows import Row
from toolformer.metrics.summary import call_metrics, row_outcome, summary

__all__ = ["Row", "bootstrap", "call_metrics", "mcnemar", "paired_bootstrap", "row_outcome", "summary", "wilson"]

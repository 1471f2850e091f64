"""The numbers of a run folder: one entry each, which every list, table and page is made from."""

from remote_trainer.metrics.evaluated import ANSWER_KEYS, EVALUATION_METRICS, per_row_keys
from remote_trainer.metrics.logged import METRICS, charted, in_rows
from remote_trainer.metrics.metric import SHARE, EvaluationMetric, LoggedMetric, Metric

__all__ = [
    "ANSWER_KEYS",
    "EVALUATION_METRICS",
    "METRICS",
    "SHARE",
    "EvaluationMetric",
    "LoggedMetric",
    "Metric",
    "charted",
    "in_rows",
    "per_row_keys",
]

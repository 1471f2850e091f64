"""Every number of eval.json that has a name in the report, in the order of its table."""

from remote_trainer.metrics.metric import NATS, SHARE, TOKENS, EvaluationMetric

_EVALUATED = (
    EvaluationMetric(
        "accuracy_greedy",
        "Accuracy, greedy",
        "share of rows answered correctly with greedy decoding",
        SHARE,
        per_row=True,
        printed=True,
    ),
    EvaluationMetric(
        "accuracy_sampled",
        "Accuracy, sampled",
        "share of correct answers among sampled ones",
        SHARE,
        per_row=True,
        printed=True,
    ),
    EvaluationMetric(
        "exact_match",
        "Exact match",
        "share of rows whose whole greedy answer is the reference",
        SHARE,
        per_row=True,
        printed=True,
    ),
    EvaluationMetric(
        "answer_logprob",
        "Log-probability of the reference",
        "nats per token; higher is more likely",
        NATS,
        "log-probability of the reference answer; higher is more likely",
        per_row=True,
        printed=True,
    ),
    EvaluationMetric(
        "reward",
        "Reward",
        "what training maximises; not by itself a sign of better answers",
        "that of the reward",
        per_row=True,
        printed=True,
    ),
    EvaluationMetric(
        "completion_tokens_mean",
        "Completion length",
        "mean number of tokens",
        TOKENS,
        "mean number of tokens of a sampled answer",
        printed=True,
    ),
    EvaluationMetric(
        "distinct_3",
        "Distinct word trigrams",
        "share of all; falls as texts become similar",
        SHARE,
        "share of distinct word trigrams in the sampled answers",
    ),
    EvaluationMetric(
        "duplicate_share",
        "Duplicates",
        "share of greedy answers that also answer another row",
        SHARE,
    ),
)
EVALUATION_METRICS: dict[str, EvaluationMetric] = {metric.key: metric for metric in _EVALUATED}


def per_row_keys() -> list[str]:
    """Keys of the metrics with a value for every row."""
    return [metric.key for metric in EVALUATION_METRICS.values() if metric.per_row]

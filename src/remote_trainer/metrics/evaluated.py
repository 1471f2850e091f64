"""Every number of eval.json that has a name in the report, in the order of its table."""

from remote_trainer.metrics.metric import NATS, SHARE, TOKENS, EvaluationMetric

_EVALUATED = (
    EvaluationMetric(
        "accuracy_greedy",
        "Accuracy, greedy",
        "share of rows answered right by the likeliest tokens",
        SHARE,
        per_row=True,
        printed=True,
    ),
    EvaluationMetric(
        "accuracy_sampled",
        "Accuracy, sampled",
        "share of right answers among those drawn at random",
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
        "nats per token; higher: likelier",
        NATS,
        "how likely the model finds the reference answer; higher is likelier",
        per_row=True,
        printed=True,
    ),
    EvaluationMetric(
        "reward",
        "Reward",
        "what training raises; alone no proof of better answers",
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
        "Different word triples",
        "share of all; falls as texts become alike",
        SHARE,
        "share of different ones among all word triples of the sampled answers",
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
    """Keys of the numbers that every row has a value of."""
    return [metric.key for metric in EVALUATION_METRICS.values() if metric.per_row]

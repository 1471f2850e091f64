"""Every number of eval.json that has a name in the report, in the order of its table."""

from collections.abc import Mapping
from typing import Any

from remote_trainer.means import mean_of_known
from remote_trainer.metrics.metric import NATS, SHARE, TOKENS, EvaluationMetric
from remote_trainer.text_statistics import distinct_3, duplicate_share

_EVALUATED = (
    EvaluationMetric(
        "accuracy_greedy",
        "Accuracy, greedy",
        "share of rows whose greedy answer is right",
        SHARE,
        of_row=lambda row: row.greedy.right,
        printed=True,
    ),
    EvaluationMetric(
        "accuracy_sampled",
        "Accuracy, sampled",
        "share of right answers among the sampled ones",
        SHARE,
        of_row=lambda row: mean_of_known(answer.right for answer in row.sampled),
        printed=True,
    ),
    EvaluationMetric(
        "exact_match",
        "Exact match",
        "share of rows whose whole greedy answer is the reference",
        SHARE,
        of_row=lambda row: row.greedy.exact,
        printed=True,
    ),
    EvaluationMetric(
        "answer_logprob",
        "Log-probability of the reference",
        "nats per token; higher is more likely",
        NATS,
        "mean log-probability of the reference answer after the prompt; higher is more likely",
        of_row=lambda row: row.reference_logprob,
        printed=True,
    ),
    EvaluationMetric(
        "reward",
        "Reward",
        "what training maximises; alone no proof of better answers",
        "that of the reward",
        of_row=lambda row: mean_of_known(row.rewards),
        printed=True,
    ),
    EvaluationMetric(
        "completion_tokens_mean",
        "Completion length",
        "mean number of tokens",
        TOKENS,
        "mean number of tokens of a sampled answer",
        of_rows=lambda rows: mean_of_known(a.tokens for row in rows for a in row.sampled),
        printed=True,
    ),
    EvaluationMetric(
        "clipped_share",
        "Completions cut",
        "share of sampled answers cut at the length limit",
        SHARE,
        of_rows=lambda rows: mean_of_known(not a.ended for row in rows for a in row.sampled),
        printed=True,
    ),
    EvaluationMetric(
        "distinct_3",
        "Distinct word triples",
        "share of all; falls as texts become alike",
        SHARE,
        "share of distinct ones among all word triples of the sampled answers",
        of_rows=lambda rows: distinct_3([a.text for row in rows for a in row.sampled]),
    ),
    EvaluationMetric(
        "duplicate_share",
        "Duplicates",
        "share of greedy answers that also answer another row",
        SHARE,
        of_rows=lambda rows: duplicate_share(
            [row.greedy.text for row in rows], [row.question for row in rows]
        ),
    ),
    EvaluationMetric(
        "general_logprob",
        "Everyday English",
        "nats per token; falls if the model forgets",
        NATS,
        "mean log-probability of 40 fixed everyday texts, which training has nothing to do with; a "
        "fall is forgetting",
        of_model=True,
        printed=True,
    ),
)
ANSWER_KEYS: Mapping[str, str] = {
    "source": "`file:line` of the row",
    "prompt": "the prompt as the model gets it: a text or messages",
    "references": "the accepted answers; empty if there are none",
    "before": "answers of the model before training: `greedy`, an answer, and `sampled`, a list of "
    "answers. An answer has its `text`, `right` (true, false, or null without a reference), its "
    "`tokens`, and `ended` (false: cut at the length limit)",
    "after": "the same of the trained model",
}
"""Key of a line of answers.jsonl -> meaning."""
EVALUATION_METRICS: dict[str, EvaluationMetric] = {metric.key: metric for metric in _EVALUATED}


def evaluation_fault(result: Mapping[str, Any]) -> str | None:
    """What is wrong with the content of an eval.json; None: it has the form that is written."""
    for side in ("before", "after"):
        numbers = result.get(side) or {}
        for key in EVALUATION_METRICS:
            value = numbers.get(key)
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                return f"{side}.{key} is {value!r:.100}"
    verdict = result.get("verdict", {"text": ""})
    if not isinstance(verdict, dict) or not isinstance(verdict.get("text"), str):
        return "its verdict has no text"
    return None


def per_row_keys() -> list[str]:
    """Keys of the numbers that every row has a value of."""
    return [metric.key for metric in EVALUATION_METRICS.values() if metric.of_row is not None]

"""Answers -> the numbers of eval.json, with 95 % intervals, and the verdict."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from remote_trainer.evaluation.accepted import Accepted
from remote_trainer.evaluation.answers import Answers, question_key
from remote_trainer.means import mean_of_known
from remote_trainer.metrics import EVALUATION_METRICS
from remote_trainer.records import AnsweredRow, EncodedRow, Generation, JudgedAnswer
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer

RESAMPLES = 2000
VERDICT_METRIC = "accuracy_sampled"
MOSTLY_CUT = 0.5

Values = list[float | None]
Metrics = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """What was measured of one model."""

    metrics: Metrics
    """As in eval.json."""
    per_row: dict[str, Values]
    """The values of each row, for a paired comparison."""
    answered: list[AnsweredRow]
    limit: int
    """Most tokens of a completion."""


def measure(
    rows: Sequence[EncodedRow],
    answers: Answers,
    prompt_tokenizer: PromptTokenizer,
    answer_field: str,
    rewards: Sequence[Sequence[float | None]] | None,
) -> Measured:
    """Judge the answers and compute every metric.

    ``rewards`` holds one list per row, one value per sampled completion; None where no reward is
    configured. Metrics without a reference are None, never 0.
    """
    answered = _answered(rows, answers, prompt_tokenizer, answer_field, rewards)
    of_model = {"general_logprob": answers.general_logprob}
    metrics: Metrics = {"rows": len(rows)}
    per_row: dict[str, Values] = {}
    for metric in EVALUATION_METRICS.values():
        if metric.of_row is not None:
            per_row[metric.key] = list(map(metric.of_row, answered))
            metrics[metric.key] = mean_of_known(per_row[metric.key])
        elif metric.of_rows is not None:
            metrics[metric.key] = metric.of_rows(answered)
        else:
            metrics[metric.key] = of_model[metric.key]
    metrics["ci95"] = {
        name: interval(values) for name, values in per_row.items() if metrics[name] is not None
    }
    metrics["by_kind"] = _by_kind(rows, per_row)
    return Measured(metrics, per_row, answered, answers.max_new_tokens)


def compare(
    before: Mapping[str, Values], after: Mapping[str, Values], set_aside: int = 0
) -> dict[str, Any]:
    """The verdict: better, worse or no measurable change, by a paired bootstrap interval.

    Judged by the share of right sampled answers only: a reward that rises is what training does,
    and no evidence that the model became better. ``set_aside`` rows with a reference have no say,
    because they chose the adapter.
    """
    pairs = zip(before[VERDICT_METRIC], after[VERDICT_METRIC], strict=True)
    changes: Values = [b - a for a, b in pairs if a is not None and b is not None]
    bounds, change = interval(changes), mean_of_known(changes)
    if bounds is None or change is None:
        return not_measured(_why_not(sum(c is not None for c in changes), set_aside))
    low, high = bounds
    word = "better" if low > 0 else "worse" if high < 0 else "no measurable change"
    return {
        "word": word,
        "metric": VERDICT_METRIC,
        "change": change,
        "ci95": [low, high],
        "text": _sentence(word, change, low, high, len(changes)),
    }


def with_cut_share(verdict: dict[str, Any], before: Measured, after: Measured) -> dict[str, Any]:
    """The verdict, if there is one, with a sentence more if the length limit cut over half of the
    completions."""
    shares = [side.metrics["clipped_share"] or 0.0 for side in (before, after)]
    if max(shares) <= MOSTLY_CUT or verdict["metric"] is None:
        return verdict
    note = (
        f"Of the sampled completions {shares[0]:.0%} before and {shares[1]:.0%} after were cut at "
        f"the limit of {after.limit} tokens, so answers may be missing: raise "
        "evaluation.max_completion_length."
    )
    return {**verdict, "text": f"{verdict['text']} {note}"}


def _why_not(judged: int, set_aside: int) -> str:
    """Why fewer than two rows say too little, in a sentence."""
    left, those = ("only one is", "the others") if judged else ("none is", "all of them")
    if set_aside:
        return (
            f"Not measured: of {judged + set_aside} held-out rows with a reference {left} left for "
            f"the verdict, because {those} chose the adapter; hold out more rows (data.eval)."
        )
    if judged:
        return "Not measured: only one held-out row has a reference, and a verdict needs two."
    return "Not measured: the held-out rows have no reference answers."


def not_measured(text: str) -> dict[str, Any]:
    """The verdict where there is nothing to judge by."""
    return {"word": "not measured", "metric": None, "change": None, "ci95": None, "text": text}


def interval(values: Sequence[float | None], seed: int = 0) -> list[float] | None:
    """95 % bootstrap interval of the mean over rows [low, high]; None for fewer than 2 values."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    draw = random.Random(seed)
    means = sorted(fmean(draw.choices(known, k=len(known))) for _ in range(RESAMPLES))
    return [means[round(0.025 * RESAMPLES)], means[round(0.975 * RESAMPLES) - 1]]


def _answered(
    rows: Sequence[EncodedRow],
    answers: Answers,
    prompt_tokenizer: PromptTokenizer,
    answer_field: str,
    rewards: Sequence[Sequence[float | None]] | None,
) -> list[AnsweredRow]:
    accepted = Accepted(rows, answer_field)

    def judged(i: int, generation: Generation) -> JudgedAnswer:
        text = prompt_tokenizer.decode(generation.ids)
        content_ids = prompt_tokenizer.without_eos(generation.ids)
        thinking = prompt_tokenizer.thinking(rows[i].prompt_ids, content_ids)
        said = text if thinking.answer_text is None else thinking.answer_text
        right = exact = None
        if accepted.known(i):
            right, exact = float(accepted.is_right(i, said)), float(accepted.is_exact(i, said))
        return JudgedAnswer(text, len(generation.ids), generation.ended, right, exact)

    return [
        AnsweredRow(
            question_key(row, answer_field),
            greedy=judged(i, answers.greedy[i]),
            sampled=[judged(i, generation) for generation in answers.sampled[i]],
            reference_logprob=answers.reference_logprobs[i],
            rewards=rewards[i] if rewards else (),
        )
        for i, row in enumerate(rows)
    ]


def _by_kind(rows: Sequence[EncodedRow], per_row: Mapping[str, Values]) -> dict[str, Metrics]:
    places: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        kind = row.row.fields.get("kind")
        if isinstance(kind, str):
            places.setdefault(kind, []).append(i)
    return {
        kind: {
            "rows": len(found),
            **{
                name: mean_of_known([per_row[name][i] for i in found])
                for name in ("accuracy_greedy", "accuracy_sampled")
            },
        }
        for kind, found in sorted(places.items())
    }


def _sentence(word: str, change: float, low: float, high: float, rows: int) -> str:
    moved = "rose" if change > 0 else "fell" if change < 0 else "did not move"
    amount = f" by {abs(change) * 100:.1f} points" if change else ""
    return (
        f"{word.capitalize()}: on {rows} held-out rows the share of right sampled answers {moved}"
        f"{amount} (95 % interval {low * 100:+.1f} to {high * 100:+.1f})."
    )

"""Does the exported file match the trained model? Compares log-probs and gives a verdict.

Rounding in a format must not hide a wrong merge, and must not look like one. So the base model is
converted to the same format: the difference between export and converted base is compared with the
difference between policy and base. An export of the base alone has slope 0, an adapter applied
twice slope 2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import fmean
from typing import Any, Literal

from remote_trainer.records import Prompt, TokenIds, Tools

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Logprobs = Sequence[Sequence[float]]

NOISE_FACTOR = 3.0
SLOPES = {"wide": (0.8, 1.2), "narrow": (0.5, 1.5)}


@dataclass(frozen=True)
class Precision:
    """Limits of a format: mean distance to the policy in nats per token, and slope."""

    tolerance: float
    slope: tuple[float, float]


PRECISIONS: Mapping[str, Precision] = {
    "float32": Precision(1e-3, SLOPES["wide"]),
    "float16": Precision(0.01, SLOPES["wide"]),
    "bfloat16": Precision(0.05, SLOPES["wide"]),
    "8bit": Precision(0.05, SLOPES["wide"]),
    "4bit": Precision(0.3, SLOPES["narrow"]),
}


@dataclass(frozen=True)
class Question:
    """One held-out row: the policy's greedy answer, and its log-probs in both models."""

    prompt: Prompt
    prompt_ids: TokenIds
    completion_ids: TokenIds
    policy: tuple[float, ...]
    base: tuple[float, ...]
    tools: Tools | None = None


@dataclass(frozen=True)
class Expected:
    """Reference results of the trained model."""

    questions: Sequence[Question]
    eos_ids: TokenIds
    chat_template_kwargs: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """For a reader in another process."""
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """Results of the exported model in another program, one entry per question."""

    logprobs: Logprobs
    likeliest_ids: Sequence[Sequence[int]]
    """The most likely id at every position of the completion."""
    greedy_ids: Sequence[Sequence[int]]
    prompt_ids: Sequence[Sequence[int]]
    """The prompts rendered by the export's own tokenizer and template."""
    eos_ids: Sequence[int]


def judge(
    expected: Expected, reading: Reading, base_reading: Logprobs, precision: Precision
) -> dict[str, Any]:
    """Content of proof.json: what was compared, every check, and the verdict.

    ``base_reading`` holds the log-probs of the base model in the same format.
    """
    policy, base = (
        _flat(q.policy for q in expected.questions),
        _flat(q.base for q in expected.questions),
    )
    export, base_there = _flat(reading.logprobs), _flat(base_reading)
    gap = [p - b for p, b in zip(policy, base, strict=True)]
    noise = [b - a for a, b in zip(base, base_there, strict=True)]
    distance = [abs(e - p) for e, p in zip(export, policy, strict=True)]
    limit = max(precision.tolerance, NOISE_FACTOR * fmean(map(abs, noise)))
    distinguishable = _rms(gap) > _rms(noise)
    slope = _slope(export, base_there, gap) if _rms(gap) > 0 else None
    low, high = precision.slope
    checks = {
        "log-probs": fmean(distance) <= limit,
        "prompts": _same(reading.prompt_ids, [q.prompt_ids for q in expected.questions]),
        "end of text": set(reading.eos_ids) >= set(expected.eos_ids),
    }
    if distinguishable and slope is not None:
        checks["slope"] = low <= slope <= high
    return {
        "verdict": _verdict(checks, distinguishable),
        "checks": checks,
        "questions": len(expected.questions),
        "tokens": len(policy),
        "slope": slope,
        "slope_wanted": [low, high],
        "distance_mean": fmean(distance),
        "distance_largest": max(distance),
        "distance_limit": limit,
        "format_noise_rms": _rms(noise),
        "policy_base_gap_rms": _rms(gap),
        "likeliest_agree": _agreement(expected, reading),
        "greedy_agree": fmean(
            list(greedy) == list(q.completion_ids)
            for greedy, q in zip(reading.greedy_ids, expected.questions, strict=True)
        ),
        "eos_ids": list(reading.eos_ids),
    }


def unreadable(reason: str) -> dict[str, Any]:
    """The proof of an export that cannot be loaded."""
    return {"verdict": "FAIL", "checks": {"loads": False}, "reason": reason}


def _verdict(checks: Mapping[str, bool], distinguishable: bool) -> Verdict:
    if not all(checks.values()):
        return "FAIL"
    return "PASS" if distinguishable else "INCONCLUSIVE"


def _slope(export: Sequence[float], base_there: Sequence[float], gap: Sequence[float]) -> float:
    """<export - base in the format, policy - base> / |policy - base|^2."""
    moved = (e - b for e, b in zip(export, base_there, strict=True))
    return sum(m * g for m, g in zip(moved, gap, strict=True)) / sum(g * g for g in gap)


def _agreement(expected: Expected, reading: Reading) -> float:
    """Share of positions at which export and policy have the same most likely token."""
    pairs = [
        (mine, theirs)
        for question, ids in zip(expected.questions, reading.likeliest_ids, strict=True)
        for mine, theirs in zip(question.completion_ids, ids, strict=True)
    ]
    return fmean(mine == theirs for mine, theirs in pairs)


def _same(found: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> bool:
    return [list(ids) for ids in found] == [list(ids) for ids in wanted]


def _flat(rows: Any) -> list[float]:
    return [value for row in rows for value in row]


def _rms(values: Sequence[float]) -> float:
    return sqrt(fmean(value * value for value in values))

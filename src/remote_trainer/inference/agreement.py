"""When two ways to the same log-probs agree: one table of limits, by what rounds.

Measured: the largest gap of the pairs that `why_apart` is asked about, on the built-in model with
an adapter, on a CPU (`benchmarks/logprob_gaps.py`, benchmarks/results/logprob_gaps.md). A limit is
twice that, so that rounding alone takes no way from a model. Nothing was measured on a GPU.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limit:
    """How far log-probs may differ, in nats."""

    nats: float
    source: str
    """Where the number comes from."""


LIMITS: Mapping[str, Limit] = {
    "float32": Limit(1e-3, "chosen: 65 times the largest measured, 1.5e-5; also 4-bit weights"),
    "bfloat16": Limit(0.3, "twice the largest measured, 0.15 (packed rows); decoding 0.12"),
    "float16": Limit(0.3, "not measured; that of bfloat16, which has fewer bits"),
    "4-bit": Limit(0.7, "twice the largest measured, 0.34 (packed rows, bfloat16 products)"),
    "unsloth": Limit(0.3, "not measured, as it needs a GPU; that of bfloat16"),
}
"""What rounds -> the limit of two ways that both round so. vLLM has none: its gap to the update was
never measured, and nothing is decided by it; `sampler_gap` in metrics.jsonl tells it."""


def limit_of(*dtypes: Any, in_4bit: bool = False) -> Limit:
    """For ways in these dtypes of torch; the coarsest decides. In float32 products of 4-bit weights
    are as exact as others."""
    names = {str(dtype).removeprefix("torch.") for dtype in dtypes}
    if names == {"float32"}:
        return LIMITS["float32"]
    if in_4bit:
        return LIMITS["4-bit"]
    return LIMITS["bfloat16" if "bfloat16" in names else "float16"]


def largest(gaps: Iterable[float]) -> float:
    """The largest; a gap that is no number must not get lost in a maximum."""
    found = list(gaps)
    return max(found) if all(gap == gap for gap in found) else float("nan")


def why_apart(gap: float, limit: Limit) -> str | None:
    """What is said of two ways that differ by ``gap`` nats; None where they agree."""
    return f"log-probs differ by {gap:.2g} nats" if not gap <= limit.nats else None

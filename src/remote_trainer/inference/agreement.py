"""When two ways to the same log-probs agree: one limit for exact arithmetic, one for coarse."""

from collections.abc import Iterable

EXACT_NATS = 1e-3
"""Of float32, where only the order of sums differs."""
ROWS_NATS, DECODING_NATS = 0.1, 0.3
"""Of 16-bit weights, which round each way apart: rows of given ids, and tokens one by one (or rows
by kernels of another program), where more steps round."""


def largest(gaps: Iterable[float]) -> float:
    """The largest; a gap that is no number must not get lost in a maximum."""
    found = list(gaps)
    return max(found) if all(gap == gap for gap in found) else float("nan")


def why_apart(gap: float, exact: bool, coarse_nats: float) -> str | None:
    """What is said of two ways that differ by ``gap`` nats; None where they agree."""
    limit = EXACT_NATS if exact else coarse_nats
    return f"log-probs differ by {gap:.2g} nats" if not gap <= limit else None

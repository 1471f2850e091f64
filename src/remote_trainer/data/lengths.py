"""A histogram of token counts."""

from collections import Counter
from collections.abc import Sequence
from math import ceil

MOST_BINS = 8


def histogram(lengths: Sequence[int]) -> list[dict[str, int]]:
    """At most `MOST_BINS` bins of equal width: ``from`` and ``to`` (both included), ``rows``."""
    if not lengths:
        return []
    least = min(lengths)
    width = ceil((max(lengths) - least + 1) / MOST_BINS)
    rows = Counter((length - least) // width for length in lengths)
    starts = [least + place * width for place in range(max(rows) + 1)]
    return [
        {"from": start, "to": start + width - 1, "rows": rows[place]}
        for place, start in enumerate(starts)
    ]

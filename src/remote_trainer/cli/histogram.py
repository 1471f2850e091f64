"""A histogram as lines for the terminal, in ASCII and narrow enough for 40 columns."""

from collections.abc import Mapping, Sequence

BAR = 16
"""Characters of the longest bar."""


def histogram_lines(bins: Sequence[Mapping[str, int]]) -> list[str]:
    """A line per bin: range, bar, rows. None for a single bin, which says nothing."""
    if len(bins) < 2:
        return []
    labels = [_label(each["from"], each["to"]) for each in bins]
    wide, most = max(map(len, labels)), max(each["rows"] for each in bins)
    return [
        f"  {label:>{wide}} {_bar(each['rows'], most):{BAR}} {each['rows']}"
        for label, each in zip(labels, bins, strict=True)
    ]


def _label(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _bar(rows: int, most: int) -> str:
    """At least one character where there is a row."""
    return "#" * max(round(BAR * rows / most), rows > 0)

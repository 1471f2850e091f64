"""Number formats of the report."""

from remote_trainer.metrics import Metric

NOTHING = "\N{EN DASH}"
_NOISE_DIGITS = 12  # 0.3 - 0.2 - 0.1 is not exactly 0 in binary


def written(metric: Metric, value: float | None) -> str:
    """``value`` in three significant digits, an en dash for None; shares as percentages."""
    if value is None:
        return NOTHING
    return f"{number(100 * value)} %" if metric.share else number(value)


def change(metric: Metric, value: float | None) -> str:
    """A signed difference; that of two shares is in percentage points."""
    if value is None:
        return NOTHING
    value = round(value, _NOISE_DIGITS)
    text = f"{number(100 * value)} points" if metric.share else number(value)
    return f"+{text}" if value > 0 else text


def number(value: float | None) -> str:
    """Three significant digits; counts and values from a thousand up as integers."""
    if value is None:
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    value += 0.0  # -0.0 becomes 0.0
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def difference(before: float | None, after: float | None) -> float | None:
    """``after - before``; None if one is missing."""
    return None if before is None or after is None else after - before

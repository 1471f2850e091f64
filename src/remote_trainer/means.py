"""Means of what was measured, where not everything could be."""

from collections.abc import Iterable
from statistics import fmean


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None where none is, because 0 would be a measurement."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None

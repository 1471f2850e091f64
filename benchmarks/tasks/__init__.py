"""Generators of the data sets for extraction and for word problems (data/README.md)."""


def split(values: str) -> list[str]:
    """The values of a list with commas."""
    return values.split(", ")

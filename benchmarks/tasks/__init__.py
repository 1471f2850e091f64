"""Generators of the data sets for extraction and for word problems (data/README.md)."""

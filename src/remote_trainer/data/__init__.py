"""Rows: read from files, checked line by line, rendered on access."""

from remote_trainer.data.encode import CHECKED_ROWS, EncodedData, encode_data
from remote_trainer.data.load import Dataset, load_data, load_score_rows

__all__ = [
    "CHECKED_ROWS",
    "Dataset",
    "EncodedData",
    "encode_data",
    "load_data",
    "load_score_rows",
]

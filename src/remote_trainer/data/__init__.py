"""Rows: read from files, checked line by line, rendered once."""

from remote_trainer.data.encode import EncodedData, encode_data
from remote_trainer.data.load import Dataset, load_data, load_score_rows

__all__ = ["Dataset", "EncodedData", "encode_data", "load_data", "load_score_rows"]

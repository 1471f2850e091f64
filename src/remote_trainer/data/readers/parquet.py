"""Parquet files."""

from pathlib import Path
from typing import Any

from remote_trainer.data.readers.table import TableReader, require_columns, require_module
from remote_trainer.errors import UserInputError


def open_parquet(path: Path) -> TableReader:
    """The rows of a file, whose columns are held in memory.

    Raises OSError or ValueError if the file cannot be opened, UserInputError if it is not a
    parquet file or pyarrow is missing.
    """
    require_module(str(path), "pyarrow")
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with path.open("rb") as file:
        try:
            table = ParquetFile(file).read()
        except (pyarrow.ArrowException, OSError) as error:
            raise UserInputError.at(
                str(path), f"not a readable parquet file ({error}); write it again"
            ) from None
    require_columns(str(path), table.column_names)

    def part(start: int, stop: int) -> list[dict[str, Any]]:
        return list(table.slice(start, stop - start).to_pylist())

    return TableReader(str(path), part, len(table), table.nbytes)

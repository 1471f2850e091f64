"""Parquet files."""

from pathlib import Path
from typing import Any

from remote_trainer.data.readers.table import TableReader, require_columns, require_module
from remote_trainer.errors import UserInputError
from remote_trainer.json_files import require_file

SMALL_BATCH = 100
"""Rows that are unpacked at a time: each can be long."""
MOST_GROWTH, GROWTH_OF_SMALL = 200, 2**28
"""A file may take this many times its own size in memory, a small one this many bytes."""


def open_parquet(path: Path) -> TableReader:
    """The rows of a file, whose columns are held in memory.

    Raises OSError or ValueError if the file cannot be opened, UserInputError if it is not a
    parquet file, if it takes far more memory than its size lets expect, or if pyarrow is missing.
    """
    require_module(str(path), "pyarrow")
    import pyarrow
    from pyarrow.parquet import ParquetFile

    require_file(path)
    with path.open("rb") as file:
        try:
            table = _unpacked(ParquetFile(file), path)
        except (pyarrow.ArrowException, OSError) as error:
            raise UserInputError.at(
                str(path), f"not a readable parquet file ({error}); write it again"
            ) from None
    require_columns(str(path), table.column_names)

    def part(start: int, stop: int) -> list[dict[str, Any]]:
        return list(table.slice(start, stop - start).to_pylist())

    return TableReader(str(path), part, len(table), table.nbytes)


def _unpacked(file: Any, path: Path) -> Any:
    """The whole table; raises UserInputError as soon as it is larger than allowed."""
    import pyarrow

    most = max(GROWTH_OF_SMALL, MOST_GROWTH * path.stat().st_size)
    batches, size = [], 0
    for batch in file.iter_batches(SMALL_BATCH, use_threads=False):
        batches.append(batch)
        size += batch.nbytes
        if size > most:
            message = (
                f"its {path.stat().st_size} bytes unpack to more than {most}; if that is intended, "
                "write the rows as JSONL"
            )
            raise UserInputError.at(str(path), message)
    return pyarrow.Table.from_batches(batches, file.schema_arrow)

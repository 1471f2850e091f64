"""Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from remote_trainer.data.readers.table import BATCH, TableReader, require_columns, require_module
from remote_trainer.errors import UserInputError
from remote_trainer.json_files import require_file

MOST_GROWTH, GROWTH_OF_SMALL = 200, 2**27
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
        try:
            return list(table.slice(start, stop - start).to_pylist())
        except (pyarrow.ArrowException, ValueError, OverflowError) as error:  # a date of year 0
            raise UserInputError.at(
                str(path), f"rows {start + 1} to {stop} cannot be read ({error}); write them again"
            ) from None

    return TableReader(str(path), part, len(table), table.nbytes)


def _unpacked(file: Any, path: Path) -> Any:
    """The whole table; raises UserInputError as soon as it is larger than allowed."""
    import pyarrow

    packed = path.stat().st_size
    most = max(GROWTH_OF_SMALL, MOST_GROWTH * packed)
    sizes = _column_sizes(file.metadata)
    # Equal values stand in a column once: each row of a batch can be as large as the whole column.
    rows = max(1, min(BATCH, most // max([1, *sizes])))
    batches, size = [], sum(sizes)
    for batch in _plain_batches(file, rows) if size <= most else ():
        size += batch.nbytes
        if size > most:
            break
        batches.append(batch)
    if size > most:
        message = f"its {packed} bytes unpack to more than {most}; if that is right, write JSONL"
        raise UserInputError.at(str(path), message)
    table = pyarrow.Table.from_batches(batches) if batches else file.schema_arrow.empty_table()
    table.validate(full=True)  # texts that are not UTF-8
    return table


def _column_sizes(metadata: Any) -> list[int]:
    """Bytes of each column of each part of the file, without compression."""
    parts = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    return [
        max(0, part.column(i).total_uncompressed_size)
        for part in parts
        for i in range(part.num_columns)
    ]


def _plain_batches(file: Any, rows: int) -> Iterator[Any]:
    """Batches whose columns hold values, not places in a dictionary."""
    import pyarrow

    for batch in file.iter_batches(rows, use_threads=False):
        columns = [
            column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column
            for column in batch.columns
        ]
        yield pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)

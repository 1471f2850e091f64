"""Readers of data formats, one file each, and which suffix each one reads."""

from collections.abc import Callable, Mapping
from pathlib import Path

from remote_trainer.data.readers.csv_file import CsvReader
from remote_trainer.data.readers.folder import FolderReader, shards_of
from remote_trainer.data.readers.hub import dataset_id, open_dataset
from remote_trainer.data.readers.jsonl import JsonlReader
from remote_trainer.data.readers.parquet import open_parquet
from remote_trainer.data.readers.reader import Reader
from remote_trainer.errors import Problem, UserInputError

__all__ = ["READERS", "Reader", "open_reader"]

READERS: Mapping[str, Callable[[Path], Reader]] = {
    ".jsonl": JsonlReader,
    ".csv": CsvReader,
    ".parquet": open_parquet,
}
"""By suffix; a file with another suffix is JSONL. A function opens the file, and raises OSError,
ValueError or UserInputError."""
_FORM = (
    "write the path of a JSONL, CSV or parquet file or of a folder of such files, or a dataset id "
    "(owner/name)"
)


def open_reader(source: str, problems: list[Problem]) -> Reader | None:
    """The reader of a file, a folder of shards, or a dataset of the Hugging Face hub; None after
    recording problems."""
    path = Path(source)
    try:
        if asked := dataset_id(source):
            return open_dataset(asked)
        if path.is_dir():
            return _open_folder(path, problems)
        return READERS.get(path.suffix.lower(), JsonlReader)(path)
    except UserInputError as error:
        problems.extend(error.problems)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        reason = "no such file" if isinstance(error, FileNotFoundError) else reason
        problems.append(Problem(source, f"{reason}; {_FORM}"))
    return None


def _open_folder(folder: Path, problems: list[Problem]) -> Reader | None:
    files = shards_of(folder, list(READERS))
    shards = [open_reader(str(file), problems) for file in files]
    opened = [shard for shard in shards if shard is not None]
    return FolderReader(folder, opened) if len(opened) == len(files) else None

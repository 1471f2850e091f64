"""Datasets of the Hugging Face hub, through the library `datasets`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_trainer.data.readers.table import TableReader, require_columns, require_module
from remote_trainer.errors import UserInputError
from remote_trainer.models.hub_access import find_hub_access

DEFAULT_SPLIT = "train"
_NAME = r"[A-Za-z0-9][\w.-]*"
_ID = re.compile(
    rf"(?P<path>{_NAME}/{_NAME})(?::(?P<config>[\w.-]+)(?=:))?(?::(?P<split>\w[\w.-]*(?:\[[^\]]*\])?))?"
)
_FILE_NAME = re.compile(r".*\.[A-Za-z]{2,7}")
FORM = "write owner/name, owner/name:split or owner/name:config:split"


@dataclass(frozen=True)
class DatasetId:
    """``owner/name``, ``owner/name:split`` or ``owner/name:config:split``."""

    text: str
    path: str
    config: str | None = None
    split: str = DEFAULT_SPLIT


def dataset_id(text: str) -> DatasetId | None:
    """The dataset that ``text`` names; None for the path of a file or folder.

    What exists here is a path, and so is a name that ends like a file (``data/rows.jsonl``).
    """
    found = _ID.fullmatch(text)
    if found is None or _FILE_NAME.fullmatch(text) or os.path.lexists(text):
        return None
    return DatasetId(text, found["path"], found["config"], found["split"] or DEFAULT_SPLIT)


def source_name(text: str) -> str:
    """The name of a data source for publication: of a path only its last part."""
    return text if dataset_id(text) else Path(text).name


def open_dataset(asked: DatasetId) -> TableReader:
    """The rows of one split; downloads the dataset if the cache of `datasets` lacks it.

    Raises UserInputError if it cannot be loaded.
    """
    require_module(asked.text, "datasets")
    import datasets

    try:
        found = datasets.load_dataset(asked.path, asked.config, split=asked.split)
    # Errors of the library, the network, the repository and its files: any class is possible.
    except Exception as error:
        raise UserInputError.at(asked.text, _why(error)) from None
    require_columns(asked.text, found.column_names)

    def part(start: int, stop: int) -> list[dict[str, Any]]:
        columns = found[start:stop]
        return [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]

    return TableReader(asked.text, part, len(found), found.data.nbytes)


def _why(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    reason = f"{type(error).__name__}: {lines[0]}"
    if find_hub_access().offline:
        return (
            "no such file or folder, and no such dataset in the cache of the library datasets "
            f"({reason}); HF_HUB_OFFLINE is set: unset it to download the dataset, or write the "
            "path of a file"
        )
    if isinstance(error, ConnectionError):
        return (
            "no such file or folder, and the Hugging Face hub cannot be reached "
            f"({reason}); connect to the network, or write the path of a file"
        )
    if isinstance(error, FileNotFoundError):
        return (
            f"no such file or folder, and no such dataset on the Hugging Face hub ({reason}); "
            "correct the name, or set HF_TOKEN if the dataset needs permission"
        )
    # Messages about configs and splits list the existing ones after the first line.
    return f"cannot be loaded ({type(error).__name__}: {' '.join(' '.join(lines).split())}); {FORM}"

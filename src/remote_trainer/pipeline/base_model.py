"""The base model of a run: recorded in the run folder, and found again later."""

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from remote_trainer.config import RunConfig
from remote_trainer.errors import UserInputError
from remote_trainer.json_files import read_object
from remote_trainer.models.resolve import find_model, resolve_model
from remote_trainer.models.weights_hash import weights_sha256
from remote_trainer.progress import SILENT, ProgressCallbacks
from remote_trainer.run_dir import RunDir, write_json

FIELD = "model.name"
_OPTIONAL = ("revision", "path", "commit")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class BaseRecord:
    """Content of base.json."""

    name: str
    """As written in the config."""
    revision: str | None
    path: str | None
    """Its absolute folder; None if the name is enough to find it."""
    commit: str | None
    """Only for models from the hub."""
    weights_sha256: str
    made_in: str
    """The absolute working directory of the run, for its relative paths."""


def read_record(run: RunDir) -> BaseRecord | None:
    """None for an old run without base.json."""
    if not run.started or not run.base.exists():
        return None
    try:
        record = BaseRecord(**read_object(run.base))
        for name, value in asdict(record).items():
            if not isinstance(value, str) and (value is not None or name not in _OPTIONAL):
                raise ValueError(f"{name} is {value!r}")
        return record
    except (OSError, ValueError, TypeError) as error:
        raise UserInputError.at(str(run.base), f"is damaged ({error}); repair it") from None


def write_record(
    run: RunDir, config: RunConfig, base: Path, watch: ProgressCallbacks = SILENT
) -> None:
    """Record the base model of the run."""
    name = config.model.name
    local = os.path.isdir(name) or is_elsewhere(run, config)
    record = BaseRecord(
        name=name,
        revision=config.model.revision,
        path=str(base.resolve()) if local else None,
        commit=base.name if not local and _COMMIT.fullmatch(base.name) else None,
        weights_sha256=weights_sha256(base, watch.stage),
        made_in=str(Path.cwd()),
    )
    write_json(run.base, asdict(record))


def is_elsewhere(run: RunDir, config: RunConfig) -> bool:
    """Whether the run recorded this name as a folder, but no such folder exists here."""
    record = read_record(run)
    was_folder = record is not None and record.path is not None and record.name == config.model.name
    return was_folder and not os.path.isdir(config.model.name)


def base_at_hand(config: RunConfig) -> Path | None:
    """The base model for a run of this config; None if it must be downloaded first.

    A name that the run in ``output_dir`` recorded as a folder is never looked up on the hub, and a
    model from the hub stays at the commit with which the run started.
    """
    run = RunDir(config.output_dir)
    if is_elsewhere(run, config):
        return base_of(run, config)
    return find_model(config.model.name, _revision(run, config))


def base_to_train(config: RunConfig) -> Path:
    """As `base_at_hand`, downloaded if necessary."""
    revision = _revision(RunDir(config.output_dir), config)
    return base_at_hand(config) or resolve_model(config.model.name, revision)


def _revision(run: RunDir, config: RunConfig) -> str | None:
    record, model = read_record(run), config.model
    same = record is not None and (record.name, record.revision) == (model.name, model.revision)
    return record.commit if record and same and record.commit else model.revision


def base_of(run: RunDir, config: RunConfig, watch: ProgressCallbacks = SILENT) -> Path:
    """The base of a run: by its name, at its old path, or as ``config`` now names it.

    A target that is not a run has no record and is itself the model. Raises UserInputError if no
    folder with the same weights is found.
    """
    record, model = read_record(run), config.model
    if record is None:
        return resolve_model(model.name, model.revision)
    renamed = (model.name, model.revision) != (record.name, record.revision)
    if renamed or record.path is None:
        revision = model.revision if renamed else record.commit or record.revision
        found = [resolve_model(model.name, revision)]
    else:
        places = (Path(record.name), Path(record.path))
        found = [place for place in dict.fromkeys(places) if os.path.isdir(place)]
    for folder in found:
        if same_weights(record, folder, watch):
            return folder
    raise _not_found(run, record, found)


def same_weights(record: BaseRecord, folder: Path, watch: ProgressCallbacks = SILENT) -> bool:
    """Whether a folder holds the weights of the record; a hub commit is identified by its name."""
    if record.commit is not None and folder.name == record.commit:
        return True
    return weights_sha256(folder, watch.stage) == record.weights_sha256


def _not_found(run: RunDir, record: BaseRecord, found: list[Path]) -> UserInputError:
    instead = (
        "write --set model.name=FOLDER, the folder of the model it was trained on (sha256 of the "
        f"weights: {record.weights_sha256[:12]})"
    )
    if found:
        places = ", ".join(map(str, found))
        return UserInputError.at(
            FIELD,
            f"the weights in {places} differ from those that {run} was trained on; {instead}",
        )
    return UserInputError.at(
        FIELD,
        f"the base model of {run} was not found, neither as {record.name!r} in the working "
        f"directory nor in {record.path}; {instead}",
    )

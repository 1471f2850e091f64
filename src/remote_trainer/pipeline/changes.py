"""Differences between a config and the run in its folder, and which stages they affect."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig, dump_config
from remote_trainer.config.older import CONFIG_FORMAT, FORMAT_KEY, as_begun, fill_in, format_of
from remote_trainer.config.yaml_file import parse_yaml
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.json_files import read_text
from remote_trainer.pipeline.base_model import read_record, same_weights
from remote_trainer.run_dir import RunDir, read_result

LENGTH = ("training.max_steps", "training.num_train_epochs")


class Stage(IntEnum):
    """The earliest stage of a run that a change invalidates."""

    NONE = 0
    EXPORT = 1
    EVALUATION = 2
    TRAINING = 3


_STAGES = {
    "export": Stage.EXPORT,
    "evaluation.rows": Stage.EVALUATION,
    "evaluation.samples": Stage.EVALUATION,
    "evaluation.max_completion_length": Stage.EVALUATION,
    "evaluation.limit_from": Stage.EVALUATION,
    "training.keep_checkpoints": Stage.NONE,
    "training.logging_steps": Stage.NONE,
    "scoring.max_tokens_per_batch": Stage.NONE,
}


@dataclass(frozen=True)
class Change:
    """One key whose value, or the content that it names, has changed."""

    key: str
    message: str
    stage: Stage
    of_content: bool = False
    """The content of a file changed, not the config."""

    @property
    def problem(self) -> Problem:
        """The problem to report if changes are not allowed."""
        return Problem(self.key, self.message)


@dataclass(frozen=True)
class Inputs:
    """Hashes of the files that a config names."""

    data_sha256: str
    train_sha256: str | None = None
    """Of the training file only; None: unknown."""
    adapter_sha256: str | None = None
    base: Path | None = None
    """Folder of the base model; None if it is not on this machine."""


def as_run_began(folder: RunDir, config: RunConfig) -> RunConfig:
    """``config``, with the former defaults of settings that are newer than the run."""
    return as_begun(config, format_of_run(folder))


def format_of_run(folder: RunDir) -> int:
    """The format of config.resolved.yaml that the run began with; today's for a new one."""
    return format_of(_resolved(folder)) if folder.started else CONFIG_FORMAT


def _resolved(folder: RunDir) -> dict[str, Any]:
    """Content of config.resolved.yaml; raises UserInputError for a damaged one."""
    path = folder.resolved_config
    try:
        file = parse_yaml(read_text(path), str(path))
    except (OSError, ValueError) as error:
        raise UserInputError.at(str(path), f"cannot be read ({error}); repair it") from None
    if file.problems or not isinstance(file.value, dict):
        told = Problem(str(path), "is not a config; repair it")
        raise UserInputError(file.problems or [told])
    return file.value


def find_changes(folder: RunDir, config: RunConfig, inputs: Inputs) -> list[Change]:
    """Changed keys of the config, and changed contents of data, base and adapter. Another path to
    the same content is not a change."""
    resolved = _resolved(folder)
    fill_in(resolved, format_of(resolved))
    old = _flat(resolved)
    new = _flat(parse_yaml(dump_config(config), "config").value)
    usual = _flat(parse_yaml(dump_config(RunConfig()), "config").value)
    # A setting that is newer than the run is unchanged as long as it has its default.
    old = {**{key: usual[key] for key in set(new) & set(usual) - set(old)}, **old}
    contents, moved = _contents(folder, old, new, inputs)
    given_eval = not {old.get("data.eval"), new.get("data.eval")} & {"auto"}
    keys = [
        Change(
            key,
            f"was {old.get(key)!r} in {folder}, now {new.get(key)!r}",
            _stage(key, given_eval),
        )
        for key in sorted(set(old) | set(new))
        if old.get(key) != new.get(key) and not _is_no_change(key) and key not in moved
    ]
    return [*keys, *contents]


def _is_no_change(key: str) -> bool:
    """Where, by how many attempts and for which tracker: that says nothing of the result."""
    return key in {"output_dir", FORMAT_KEY} or key.startswith(("distributed.", "tracking."))


def _stage(key: str, given_eval: bool) -> Stage:
    if key == "data.eval" and given_eval:  # otherwise it decides which rows are used for training
        return Stage.EVALUATION
    found = (_STAGES[prefix] for prefix in (key, key.partition(".")[0]) if prefix in _STAGES)
    return next(found, Stage.TRAINING)


def _contents(
    folder: RunDir, old: dict[str, Any], new: dict[str, Any], inputs: Inputs
) -> tuple[list[Change], set[str]]:
    """(changes of contents, keys whose old and new values name the same content)."""
    changes, moved = _base_changes(folder, old, new, inputs.base)
    if not folder.data_report.exists():
        return changes, moved
    recorded = read_result(folder.data_report)
    files = {old.get("data.eval"), new.get("data.eval")}.isdisjoint({"auto", "none"})
    if recorded.get("sha256") == inputs.data_sha256:
        moved |= {"data.train", "data.eval"} if files else {"data.train"}
    else:
        train = recorded.get("train")
        same_train = isinstance(train, dict) and train.get("sha256") == inputs.train_sha256
        stage = Stage.EVALUATION if files and same_train else Stage.TRAINING
        message = f"the data files changed after {folder} was created"
        changes.append(Change("data", message, stage, of_content=True))
    if recorded.get("adapter_sha256") != inputs.adapter_sha256:
        changes.append(
            Change(
                "model.adapter",
                f"the adapter's weights changed after {folder} was created",
                Stage.TRAINING,
                of_content=True,
            )
        )
    elif inputs.adapter_sha256 is not None:
        moved.add("model.adapter")
    return changes, moved


def _base_changes(
    folder: RunDir, old: dict[str, Any], new: dict[str, Any], base: Path | None
) -> tuple[list[Change], set[str]]:
    record = read_record(folder)
    if record is None or base is None:
        return [], set()
    if same_weights(record, base):
        return [], {"model.name", "model.revision"}
    if any(old.get(key) != new.get(key) for key in ("model.name", "model.revision")):
        return [], set()
    return [
        Change(
            "model.name",
            f"the weights in {base} changed after {folder} was created",
            Stage.TRAINING,
            of_content=True,
        )
    ], set()


def stage_of(changes: Collection[Change]) -> Stage:
    """The earliest stage that must be repeated."""
    return max((change.stage for change in changes), default=Stage.NONE)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """``{"training.seed": 0, ...}``."""
    if not isinstance(value, dict | list):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        flat.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat

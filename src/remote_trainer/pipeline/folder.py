"""Whether a run may use a folder, and where it continues."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig, dump_config
from remote_trainer.config.schema import ExportSettings
from remote_trainer.engines.protocol import Backend
from remote_trainer.environment import describe_environment, what_differs
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.paths import FolderLock, why_no_folder
from remote_trainer.pipeline.changes import (
    LENGTH,
    Change,
    Inputs,
    Stage,
    find_changes,
    format_of_run,
    stage_of,
)
from remote_trainer.pipeline.export import is_proven, proof_name, read_proof
from remote_trainer.planning.length import updates_of
from remote_trainer.report import has_report
from remote_trainer.run_dir import RunDir, read_result, write_json, write_text

logger = logging.getLogger(__name__)

FIELD = "output_dir"
TOKENS_PER_PASS = "tokens_per_pass"
"""Key of environment.json, if memory was exhausted: tokens that go through the model at once."""


def folder_problems(config: RunConfig) -> list[Problem]:
    """Why ``output_dir`` cannot be used; creates nothing."""
    folder = RunDir(config.output_dir)
    why = why_no_folder(folder.root)
    if why is not None:
        return [Problem(FIELD, f"{folder}: {why}")]
    results = (folder.adapter, folder.checkpoints, folder.eval, folder.metrics)
    foreign = [path.name for path in results if path.exists() and not folder.started]
    if foreign:
        return [
            Problem(
                FIELD,
                f"{folder} contains {', '.join(foreign)}, which a run would overwrite, but is not "
                f"a run folder (it has no {folder.resolved_config.name}); write another folder",
            )
        ]
    return []


def open_folder(
    folder: RunDir, config: RunConfig, inputs: Inputs, resume: str, allow_changed: bool
) -> Path | None:
    """Prepare the folder; returns the checkpoint to resume from, or None to start.

    Raises UserInputError if it holds a run with another config, other data, another base or
    another initial adapter, or if allowed changes leave nothing to train.
    """
    named = None if resume in ("auto", "never") else Path(resume)
    if named is not None:
        # It imports torch and PEFT, which `check` and the light install do not need.
        from remote_trainer.trainer.checkpoint import verify

        verify(named)
    if not folder.started:
        return named
    changes = find_changes(folder, config, inputs)
    if changes and not allow_changed:
        options = Problem(str(folder), _options(folder, config, changes))
        raise UserInputError([*(change.problem for change in changes), options])
    if named is not None:
        forget(folder, Stage.TRAINING)  # the adapter will change
        return named
    if folder.adapter.exists():
        return _continue(folder, config, changes)
    return _newest(folder)


def _continue(folder: RunDir, config: RunConfig, changes: Sequence[Change]) -> Path | None:
    """Prepare a finished run for its changes; returns the checkpoint to continue from."""
    stage = _stage_of_finished(folder, config, changes)
    checkpoint = _newest_to_continue(folder, config) if stage is Stage.TRAINING else None
    forget(folder, stage)
    return checkpoint


def _stage_of_finished(folder: RunDir, config: RunConfig, changes: Sequence[Change]) -> Stage:
    """The stage from which a finished run is repeated. A changed training file alone changes
    nothing if no update is left."""
    stage = stage_of(changes)
    if stage is Stage.TRAINING and _why_complete(folder, config):
        files = [change for change in changes if change.of_content and change.stage is stage]
        return stage_of([change for change in changes if change not in files])
    return stage


def move_aside(folder: RunDir) -> None:
    """Rename the run in the folder; raises UserInputError if that is not possible, for instance
    because another process writes it."""
    if not folder.started:
        return
    if Path.cwd().is_relative_to(folder.root.resolve()):
        raise UserInputError.at(
            "--resume never",
            f"would move {folder}, which contains the working directory; start from another "
            "directory, or write another output_dir",
        )
    with FolderLock(folder.root, "--resume never") as lock:
        try:
            lock.folder = folder.set_aside()
        except OSError as error:
            raise UserInputError.at(
                "--resume never",
                f"{folder} cannot be renamed ({error.strerror}); write another output_dir",
            ) from None


def write_configs(folder: RunDir, config: RunConfig, config_text: str) -> None:
    """Write the config as given and with every value; raises UserInputError if that would
    overwrite a file of the user."""
    name = folder.config
    if not folder.started and name.exists() and name.read_bytes() != config_text.encode():
        raise UserInputError.at(
            FIELD,
            f"{name} exists with another config, which the run would overwrite; write another "
            "folder",
        )
    # A run keeps its format: called again, its newer settings again get their former defaults.
    write_text(folder.resolved_config, dump_config(config, format_of_run(folder)))
    write_text(folder.config, config_text)


def begin_environment(
    folder: RunDir, backend: Backend, engine: Mapping[str, Any], resumed: bool
) -> None:
    """Write environment.json. A resumed run is told what is not as it was, and keeps the number of
    tokens at once to which it was lowered for lack of memory."""
    before = _read_environment(folder) if resumed else {}
    differs = what_differs(before, describe_environment())
    if differs is not None:
        logger.warning(
            "the run goes on, but not bit for bit as if it had not been interrupted: %s",
            differs,
        )
    backend.budget.limit = before.get(TOKENS_PER_PASS)
    write_environment(folder, backend, engine)
    backend.budget.on_lower = lambda limit: write_json(
        folder.environment, {**_read_environment(folder), TOKENS_PER_PASS: limit}
    )


def write_environment(folder: RunDir, backend: Backend, engine: Mapping[str, Any]) -> None:
    """Write environment.json with the number of tokens at once, if it was lowered."""
    limit = backend.budget.limit
    lowered = {} if limit is None else {TOKENS_PER_PASS: limit}
    write_json(folder.environment, {**describe_environment(), "engine": engine, **lowered})


def _read_environment(folder: RunDir) -> dict[str, Any]:
    """Content of environment.json; empty if there is none."""
    if not folder.environment.exists():
        return {}
    found = read_result(folder.environment)
    limit = found.get(TOKENS_PER_PASS)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise UserInputError.at(
            str(folder.environment), f"{TOKENS_PER_PASS} is {limit!r}; write a number, or remove it"
        )
    return found


def require_checkpoint(resume: str) -> None:
    """Raises UserInputError unless ``resume`` is auto, never or a folder."""
    if resume not in ("auto", "never") and not os.path.isdir(resume):
        raise UserInputError.at(
            "--resume",
            f"no folder {resume!r}; write auto, never or a folder in checkpoints/ of a run",
        )


def is_finished(folder: RunDir, export: ExportSettings) -> bool:
    """Whether every stage has written its result, and every export is verified."""
    proofs = [
        (folder.export(form), proof_name(form, export.gguf_type))
        for form in export.formats
        if form != "lora"
    ]
    stages = folder.started and folder.eval.exists() and has_report(folder)
    stages = stages and is_proven(folder.adapter)
    return stages and all(
        is_proven(*proof) and read_proof(*proof).get("merge_base") in (None, export.merge_base)
        for proof in proofs
    )


def forget(folder: RunDir, stage: Stage) -> None:
    """Remove the results that a change invalidates, last stage first; verified exports stay
    unless the adapter will change."""
    if stage >= Stage.EXPORT:
        folder.report.unlink(missing_ok=True)
    if stage >= Stage.EVALUATION:
        folder.eval.unlink(missing_ok=True)
        folder.answers.unlink(missing_ok=True)
    if stage >= Stage.TRAINING:
        for export in (*folder.exports, folder.adapter):
            shutil.rmtree(export, ignore_errors=True)


def _newest(folder: RunDir) -> Path | None:
    if not folder.complete_checkpoints():
        return None
    # It imports torch and PEFT, which `check` and the light install do not need.
    from remote_trainer.trainer.checkpoint import newest_checkpoint

    return newest_checkpoint(folder)


def _newest_to_continue(folder: RunDir, config: RunConfig) -> Path:
    """The checkpoint to continue a finished run from; raises UserInputError if it is complete."""
    problem = _why_complete(folder, config)
    newest = None if problem else _newest(folder)
    if newest is None:
        raise UserInputError.at(str(folder), problem or _NO_CHECKPOINT)
    return newest


_NO_CHECKPOINT = (
    "its checkpoints are missing, so this run cannot be resumed; to train its adapter further, "
    "name this folder as model.adapter of a new run with another output_dir"
)


def _why_complete(folder: RunDir, config: RunConfig) -> str | None:
    """Why this config leaves a finished run nothing to train; None: updates are left."""
    complete = folder.complete_checkpoints()
    if not complete:
        return _NO_CHECKPOINT
    done, updates = folder.step_of(complete[-1]), updates_of(config, _rows_kept(folder))
    earlier = (
        f"resume from an earlier checkpoint (--resume {folder.checkpoints}/step-... "
        "--allow-changed)"
    )
    if done >= updates:
        return (
            f"{done} updates are done and {updates} are configured, so the changes would have no "
            f"effect; raise training.max_steps, {earlier}, or start over with --resume never"
        )
    if config.guard.action == "stop" and _was_stopped(folder):
        return (
            f"the guard stopped this run after update {done} and would stop it again; {earlier}, "
            "or write guard.action: warn"
        )
    return None


def _options(folder: RunDir, config: RunConfig, changes: Sequence[Change]) -> str:
    """What the user can do if the folder contains another run."""
    finished = folder.adapter.exists()
    stage = _stage_of_finished(folder, config, changes) if finished else Stage.TRAINING
    if not finished or stage is Stage.NONE:
        return (
            "contains a run with other settings (see above); write another output_dir, resume "
            "anyway with --allow-changed, or start over with --resume never, which renames the "
            "folder"
        )
    if stage is Stage.TRAINING:
        if why_not := _why_complete(folder, config):
            return f"contains a finished run: {why_not}; or write another output_dir"
        newest = folder.complete_checkpoints()[-1]
        otherwise = {change.key for change in changes} - set(LENGTH)
        how = ", with the changed config," if otherwise else ""
        does = (
            f"continues training{how} from {newest} to {updates_of(config, _rows_kept(folder))} "
            "updates and repeats evaluation, exports and report (add --resume CHECKPOINT to start "
            "from an earlier one)"
        )
    else:
        does = "trains nothing and repeats " + (
            "exports and report" if stage is Stage.EXPORT else "evaluation and report"
        )
    return (
        f"contains a finished run; --allow-changed {does}; or write another output_dir, or start "
        "over with --resume never, which renames the folder"
    )


def _rows_kept(folder: RunDir) -> int:
    kept = read_result(folder.data_report, train=dict)["train"].get("rows_kept")
    if not isinstance(kept, int):
        raise UserInputError.at(str(folder.data_report), f"train.rows_kept is {kept!r}; repair it")
    return kept


def _was_stopped(folder: RunDir) -> bool:
    return bool(read_result(folder.guard, stopped=bool)["stopped"])

"""May this run use this folder, and from where does it go on?"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig, dump_config
from remote_trainer.config.yaml_file import parse_yaml
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.pipeline.export import is_proven
from remote_trainer.run_dir import RunDir


def open_folder(
    folder: RunDir,
    config: RunConfig,
    data_sha256: str,
    resume: str,
    allow_changed: bool,
    adapter_sha256: str | None = None,
) -> Path | None:
    """Make the folder ready; the checkpoint to go on from, or None to begin.

    Raises UserInputError if a run with another config, other data or another adapter to begin
    with lives there.
    """
    if resume not in ("auto", "never"):
        from remote_trainer.trainer.checkpoint import verify

        verify(Path(resume))
    if resume == "never" and folder.root.exists():
        folder.set_aside()
    if not folder.started:
        return Path(resume) if resume not in ("auto", "never") else None
    problems = _differences(folder, config, data_sha256, adapter_sha256)
    if problems and not allow_changed:
        raise UserInputError(
            [
                *problems,
                Problem(
                    str(folder),
                    "holds a run that was made differently (see above); choose another "
                    "output_dir, go on anyway with --allow-changed, or start over with "
                    "--resume never, which moves the folder aside",
                ),
            ]
        )
    if resume not in ("auto", "never"):
        for export in (folder.adapter, *folder.exports):  # another adapter will come of it
            shutil.rmtree(export, ignore_errors=True)
        return Path(resume)
    if folder.adapter.exists() or not folder.complete_checkpoints():
        return None
    from remote_trainer.trainer.checkpoint import newest_checkpoint

    return newest_checkpoint(folder)


def require_checkpoint(resume: str) -> None:
    """Raises UserInputError unless ``resume`` is auto, never or a folder."""
    if resume not in ("auto", "never") and not Path(resume).is_dir():
        raise UserInputError.at(
            "--resume",
            f"no folder {resume!r}; write auto, never or a folder in checkpoints/ of a run",
        )


def is_finished(folder: RunDir, formats: Sequence[str]) -> bool:
    """Whether every stage has left its result, and every export is proven."""
    exports = [folder.adapter, *(folder.root / form for form in formats if form != "lora")]
    stages = folder.eval.exists() and folder.report.exists()
    return stages and all(is_proven(export) for export in exports)


def _differences(
    folder: RunDir, config: RunConfig, data_sha256: str, adapter_sha256: str | None
) -> list[Problem]:
    """Keys of the config, the data and the adapter to begin with that differ from those the
    folder was made with."""
    text = folder.resolved_config.read_text(encoding="utf-8")
    old = _flat(parse_yaml(text, str(folder.resolved_config)).value)
    new = _flat(parse_yaml(dump_config(config), "config").value)
    usual = _flat(parse_yaml(dump_config(RunConfig()), "config").value)
    # A setting that is newer than the run is no difference as long as it is left alone.
    old = {**{key: usual[key] for key in set(new) & set(usual) - set(old)}, **old}
    problems = [
        Problem(key, f"was {old.get(key)!r} in {folder}, is {new.get(key)!r} now")
        for key in sorted(set(old) | set(new))
        if old.get(key) != new.get(key) and key != "output_dir"
    ]
    if folder.data_report.exists():
        known = json.loads(folder.data_report.read_text(encoding="utf-8"))
        if known.get("sha256") != data_sha256:
            problems.append(Problem("data", f"the data files changed since {folder} was made"))
        if known.get("adapter_sha256") != adapter_sha256:
            problems.append(
                Problem("model.adapter", f"the adapter's weights changed since {folder} was made")
            )
    return problems


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """``{"training.seed": 0, ...}``."""
    if not isinstance(value, dict | list):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        flat.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat

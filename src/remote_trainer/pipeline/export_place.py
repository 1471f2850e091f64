"""The input of an export, its data files, and its output folder."""

import os
from pathlib import Path

from remote_trainer.config import RunConfig
from remote_trainer.data.readers.hub import dataset_id
from remote_trainer.errors import UserInputError
from remote_trainer.paths import why_no_folder
from remote_trainer.pipeline.base_model import read_record
from remote_trainer.run_dir import RunDir, read_result

PROOF = "proof.json"


def parts_of(target: Path) -> tuple[RunDir, Path | None]:
    """The run of a path, and the checkpoint if the path is one."""
    run = RunDir(target)
    if os.path.exists(run.adapter):
        return run, None
    owner = RunDir(target.resolve().parent.parent)
    if owner.started and target.resolve() in owner.complete_checkpoints():
        return owner, target
    reason = "its run is not finished" if run.started else "it is neither a run nor a checkpoint"
    raise UserInputError.at(
        str(target),
        f"{reason}; name a finished run folder, or a folder checkpoints/step-... of a run",
    )


def place_of(run: RunDir, checkpoint: Path | None, form: str, output: Path | None) -> Path:
    """The folder of an export; raises UserInputError if ``output`` cannot be used."""
    if output is not None:
        return _given(output, run, checkpoint, form)
    if checkpoint is not None:
        return run.root / "exports" / checkpoint.name / form
    return run.export(form)


def _given(output: Path, run: RunDir, checkpoint: Path | None, form: str) -> Path:
    """The folder that the user names, if it is new, or an export of this format."""
    if form == "lora" and not checkpoint and output.resolve() == run.adapter.resolve():
        return run.adapter
    why = why_no_folder(output)
    if why is None and output.is_dir() and any(output.iterdir()):
        proofs = (read_result(file) for file in output.glob(f"*{PROOF}"))
        if not any(proof.get("format") == form for proof in proofs):
            why = (
                f"is not empty and is not an export of the format {form}; it would be "
                "overwritten. Name a new folder"
            )
    if why is not None:
        raise UserInputError.at("--output", f"{output}: {why}")
    return output


def with_files_found(config: RunConfig, run: RunDir) -> RunConfig:
    """Relative data files that do not exist here are looked up in the directory of the run; what
    is not there either may be a dataset of the hub."""
    record, data = read_record(run), config.with_data()
    if record is None:
        return config
    made_in = Path(record.made_in)
    there = {
        name: str(made_in / file)
        for name, file in (("train", data.train), ("eval", data.eval))
        if file
        and file not in ("auto", "none")
        and not Path(file).exists()
        and ((made_in / file).exists() or not dataset_id(file))
    }
    return config.model_copy(update={"data": data.model_copy(update=there)})

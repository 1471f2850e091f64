"""Model name -> local folder. The only place where a model may be downloaded."""

import os
from pathlib import Path

from remote_trainer.errors import DownloadError, UserInputError
from remote_trainer.json_files import read_object
from remote_trainer.models.builtin_model import BUILTIN_NAME, builtin_folder, unpack_builtin
from remote_trainer.models.weights_hash import weight_files
from remote_trainer.paths import expand
from remote_trainer.run_dir import CHECKPOINT_ADAPTER, MANIFEST, RunDir

ADAPTER_CONFIG = "adapter_config.json"
_WANTED_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


def find_model(name: str, revision: str | None = None) -> Path | None:
    """The folder of a model on this machine; None if it must be downloaded first.

    Raises UserInputError for a name that cannot be a model.
    """
    if name.startswith("builtin/"):
        _require_builtin(name)
        folder = builtin_folder()
        return folder if folder.exists() else None
    if os.path.isdir(here := _expanded(name)):
        return _require_model_folder(here)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserInputError.at(
            "model.name",
            f"no folder {name!r}; write an existing folder, a Hugging Face id "
            f"(owner/model) or {BUILTIN_NAME}",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        fetched = snapshot_download(name, revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise UserInputError.at(
            "model.name", f"{name!r} is not a valid model id: {error}"
        ) from None
    return _require_no_adapter(Path(fetched), name)


def resolve_model(name: str, revision: str | None = None) -> Path:
    """The local folder of a model; downloads it if necessary (safetensors and text files only).

    Raises UserInputError for names that cannot be models, DownloadError if the download fails.
    """
    if folder := find_model(name, revision):
        return folder
    if name.startswith("builtin/"):
        return unpack_builtin()
    from huggingface_hub import snapshot_download

    try:
        fetched = snapshot_download(name, revision=revision, allow_patterns=_WANTED_FILES)
    except Exception as error:  # network libraries raise many kinds; the cause is kept
        raise DownloadError(
            f"model.name: {name!r} is not a local folder, and downloading it from the Hugging "
            f"Face hub failed ({type(error).__name__}: {error}); write an existing folder, or "
            f"{BUILTIN_NAME}, which needs no hub"
        ) from error
    return _require_no_adapter(Path(fetched), name)


def _expanded(name: str) -> Path:
    try:
        return Path(expand(name))
    except ValueError as error:
        raise UserInputError.at("model.name", str(error)) from None


def _require_builtin(name: str) -> None:
    if name != BUILTIN_NAME:
        raise UserInputError.at(
            "model.name", f"no built-in model {name!r}; the only one is {BUILTIN_NAME}"
        )


def _require_model_folder(folder: Path) -> Path:
    _require_no_run(folder)
    _require_no_adapter(folder, str(folder))
    if not (folder / "config.json").exists():
        raise UserInputError.at(
            "model.name",
            f"folder {str(folder)!r} has no config.json, so it is not a model; write a folder "
            "that from_pretrained accepts",
        )
    if not list(folder.glob("*.safetensors")):
        raise UserInputError.at(
            "model.name",
            f"folder {str(folder)!r} has no .safetensors file; other weight formats can run code "
            "when loaded and are not supported: convert them first",
        )
    if lacking := [file.name for file in weight_files(folder) if not file.exists()]:
        raise UserInputError.at(
            "model.name",
            f"folder {str(folder)!r} lacks {', '.join(lacking)}, which its index lists; copy or "
            "download the model again",
        )
    return folder


def _require_no_run(folder: Path) -> None:
    """A run, or a checkpoint of one, holds an adapter, not a whole model."""
    run = RunDir(folder)
    checkpoint = all((folder / name).exists() for name in (MANIFEST, CHECKPOINT_ADAPTER))
    if not run.started and not checkpoint:
        return
    run = run if run.started else RunDir(folder.resolve().parent.parent)
    base = _json_entry(run.base, "name") or f"the model.name in {run.resolved_config}"
    raise UserInputError.at(
        "model.name",
        f"{str(folder)!r} is a run or a checkpoint, which holds only an adapter. To train it "
        f"further, write adapter: {folder} and name: {base} in the section model; eval, chat and "
        "export take the run folder",
    )


def _require_no_adapter(folder: Path, name: str) -> Path:
    """transformers would load the base that the adapter names, which may have changed."""
    if not (folder / ADAPTER_CONFIG).exists():
        return folder
    if (folder / "config.json").exists() and any(folder.glob("model*.safetensors")):
        raise UserInputError.at(
            "model.name",
            f"{name!r} contains {ADAPTER_CONFIG} as well as a whole model, so transformers would "
            "load the base that it names instead; move the adapter files to another folder",
        )
    run = RunDir(folder.resolve().parent)
    base = _json_entry(run.base, "name") or _json_entry(
        folder / ADAPTER_CONFIG, "base_model_name_or_path"
    )
    adapter = name if os.path.isdir(name) else "<the folder it was downloaded to>"
    whole = "; eval, chat and export take the run folder" if run.started else ""
    raise UserInputError.at(
        "model.name",
        f"{name!r} is a LoRA adapter (it contains {ADAPTER_CONFIG}), not a model: write adapter: "
        f"{adapter} in the section model, and as name its base"
        f"{f', according to its config {base}' if base else ''}{whole}",
    )


def _json_entry(file: Path, key: str) -> str:
    """One entry of a JSON object; empty if there is none."""
    if not file.exists():
        return ""
    try:
        return str(read_object(file).get(key) or "")
    except (OSError, ValueError):  # reading the adapter reports it
        return ""

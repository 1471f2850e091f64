"""Model name -> local folder. The only place where a model may be downloaded."""

from pathlib import Path

from remote_trainer.engine.builtin_model import BUILTIN_NAME, builtin_folder, unpack_builtin
from remote_trainer.errors import DownloadError, UserInputError

_WANTED_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


def find_model(name: str, revision: str | None = None) -> Path | None:
    """The folder of a model that is here already; None if it would have to be fetched first.

    Raises UserInputError where the name can never become a model.
    """
    if name.startswith("builtin/"):
        _require_builtin(name)
        folder = builtin_folder()
        return folder if folder.exists() else None
    if Path(name).is_dir():
        return _require_model_folder(Path(name))
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserInputError.at(
            "model.name",
            f"no folder {name!r}; write an existing folder, a Hugging Face id "
            f"(owner/model) or {BUILTIN_NAME}",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise UserInputError.at("model.name", f"{name!r} is no model id: {error}") from None


def resolve_model(name: str, revision: str | None = None) -> Path:
    """The local folder of a model; fetches it if need be (safetensors and text files only).

    Raises UserInputError for names that cannot be models, DownloadError if fetching fails.
    """
    if folder := find_model(name, revision):
        return folder
    if name.startswith("builtin/"):
        return unpack_builtin()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED_FILES))
    except Exception as error:  # network libraries raise many kinds; the cause is kept
        raise DownloadError(
            f"model.name: {name!r} is neither a local folder nor can it be fetched from the "
            f"Hugging Face hub ({type(error).__name__}: {error}); write an existing folder, or "
            f"{BUILTIN_NAME}, which needs no hub"
        ) from error


def _require_builtin(name: str) -> None:
    if name != BUILTIN_NAME:
        raise UserInputError.at(
            "model.name", f"no built-in model {name!r}; there is {BUILTIN_NAME}"
        )


def _require_model_folder(folder: Path) -> Path:
    if not (folder / "config.json").exists():
        raise UserInputError.at(
            "model.name",
            f"folder {str(folder)!r} holds no config.json, so it is no model; "
            "write the folder that from_pretrained would take",
        )
    if not list(folder.glob("*.safetensors")):
        raise UserInputError.at(
            "model.name",
            f"folder {str(folder)!r} holds no .safetensors file; other weight "
            "formats can run code when they are loaded and are refused: convert them first",
        )
    return folder

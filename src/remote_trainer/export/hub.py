"""Upload of a finished export to the Hugging Face hub."""

from pathlib import Path

from remote_trainer.errors import ExportError


def push(folder: Path, repo: str) -> str:
    """Upload a folder as a model repository, private if it is new; returns its address.

    Uses the token from `hf auth login` or HF_TOKEN. Raises ExportError, also for a link in the
    folder: what it leads to would be uploaded.
    """
    links = sorted(str(file) for file in folder.rglob("*") if file.is_symlink())
    if links:
        raise ExportError(
            f"--push-to-hub {repo}: {links[0]} is a link, and only files of the export itself are "
            "uploaded; remove it"
        )
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import httpx  # its HTTP library: httpx, or httpx2 from 2.0 on

    api = HfApi()
    try:
        address = api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Upload by remote_trainer"
        )
    except HFValidationError as error:
        raise ExportError(
            f"--push-to-hub: {repo!r} is not a valid repository name: {error}"
        ) from None
    except UnicodeEncodeError:
        raise ExportError(
            f"--push-to-hub {repo}: the token contains a character that is not ASCII; set "
            f"HF_TOKEN again. The export itself is finished: {folder}"
        ) from None
    except (httpx.HTTPError, LocalTokenNotFoundError, OSError) as error:
        raise ExportError(
            f"--push-to-hub {repo}: {error}; log in with `hf auth login` or set HF_TOKEN to a "
            "token with write access, and check the connection to the hub. The export itself is "
            f"finished: {folder}"
        ) from error
    return str(address)

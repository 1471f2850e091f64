"""Upload of a finished export to the Hugging Face hub."""

from pathlib import Path

from remote_trainer.errors import ExportError


def push(folder: Path, repo: str) -> str:
    """Upload a folder as a model repository, made private if it is new; returns its address.

    The token is the one `hf auth login` or HF_TOKEN gave. Raises ExportError.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import httpx  # what it speaks through: httpx, from 2.0 on httpx2

    api = HfApi()
    try:
        address = api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Upload by remote_trainer"
        )
    except HFValidationError as error:
        raise ExportError(f"--push-to-hub: {repo!r} is no repository name: {error}") from None
    except UnicodeEncodeError:
        raise ExportError(
            f"--push-to-hub {repo}: the token holds a character that is not ASCII; set HF_TOKEN "
            f"anew. The export itself is finished: {folder}"
        ) from None
    except (httpx.HTTPError, LocalTokenNotFoundError, OSError) as error:
        raise ExportError(
            f"--push-to-hub {repo}: {error}; log in with `hf auth login` or "
            "set HF_TOKEN to a token that may write, and see that the hub can be reached. The "
            f"export itself is finished: {folder}"
        ) from error
    return str(address)

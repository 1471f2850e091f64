"""Whether the Hugging Face hub may be used, found out without connecting."""

import os
from dataclasses import dataclass
from pathlib import Path

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class HubAccess:
    """Contains no secrets: only whether a token is set."""

    offline: bool
    """HF_HUB_OFFLINE is set: only cached downloads can be used."""
    token: bool
    """A token is in the environment or in the hub's token file; it may be invalid."""


def find_hub_access() -> HubAccess:
    """Check the environment and the hub's files; makes no connection and reads no token.

    huggingface_hub's ``get_token`` may renew tokens over the network.
    """
    from huggingface_hub import constants

    file = Path(constants.HF_TOKEN_PATH)
    return HubAccess(
        offline=bool(constants.HF_HUB_OFFLINE),
        token=any(os.environ.get(name) for name in TOKEN_VARIABLES)
        or (file.is_file() and file.stat().st_size > 0),
    )

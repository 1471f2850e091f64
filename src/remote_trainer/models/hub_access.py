"""How the Hugging Face hub would be reached, without reaching for it."""

import os
from dataclasses import dataclass
from pathlib import Path

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class HubAccess:
    """Nothing here is secret: of a token only that there is one."""

    offline: bool
    """HF_HUB_OFFLINE is set: only what was downloaded before can be used."""
    token: bool
    """A token is in the environment or in the hub's own file; whether it is valid is not known."""


def find_hub_access() -> HubAccess:
    """Look at the environment and at the hub's files; connects to nothing, reads no token.

    huggingface_hub's own ``get_token`` renews some tokens over the network.
    """
    from huggingface_hub import constants

    file = Path(constants.HF_TOKEN_PATH)
    return HubAccess(
        offline=bool(constants.HF_HUB_OFFLINE),
        token=any(os.environ.get(name) for name in TOKEN_VARIABLES)
        or (file.is_file() and file.stat().st_size > 0),
    )

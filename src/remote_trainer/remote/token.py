"""The token without which a cluster answers nobody. It is kept in a file of the user alone."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

TOKEN_VARIABLE, PATH_VARIABLE, MODE_VARIABLE = (
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_AUTH_MODE",
)


def token_file(environment: Mapping[str, str]) -> Path:
    """Where Ray looks for the token."""
    given = environment.get(PATH_VARIABLE)
    return Path(given) if given else Path.home() / ".ray" / "auth_token"


def find_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """The user's token, found as Ray finds it; None if there is none."""
    if given := environment.get(TOKEN_VARIABLE, "").strip():
        return given
    try:
        return token_file(environment).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def require_token(environment: Mapping[str, str] = os.environ) -> None:
    """Make a token if the user has none, and keep other users from reading it: Ray would write the
    file with mode 0644."""
    if environment.get(TOKEN_VARIABLE):
        return
    file = token_file(environment)
    if find_token(environment) is None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(secrets.token_hex(32))
    if file.stat().st_mode & 0o077:
        file.chmod(0o600)

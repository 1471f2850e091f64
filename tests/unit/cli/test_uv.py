"""``uv run remote-trainer`` in a checkout, in the environment that runs the tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCK = ROOT / "uv.lock"
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.skipif(UV is None, reason="uv is not installed; the extra dev brings it")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--version"], "remote-trainer "),
        (["check", "configs/supervised.yaml"], "configs/supervised.yaml: no problems"),
    ],
    ids=["version", "check"],
)
def test_uv_runs_the_command_of_a_checkout(arguments: list[str], told: str, tmp_path: Path) -> None:
    """``--no-sync``, since without it uv would resolve and install, which needs a network."""
    assert UV is not None
    environment = os.environ | {
        "UV_PROJECT_ENVIRONMENT": sys.prefix,
        "UV_CACHE_DIR": str(tmp_path),
        "UV_OFFLINE": "1",
    }
    environment.pop("VIRTUAL_ENV", None)  # uv would warn where it is another one
    had_lock = LOCK.exists()
    done = subprocess.run(
        [UV, "run", "--no-sync", "remote-trainer", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    assert LOCK.exists() == had_lock

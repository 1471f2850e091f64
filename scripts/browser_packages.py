"""Installs what the browser tests need: Debian's Chromium with its driver, selenium and axe-core.

    python scripts/browser_packages.py [PIP_ARGS ...]

What cannot be installed is no error: tests that need it are skipped by name. Chromium is installed
only where it is missing, for root, and if apt answers in time. selenium goes into the environment
of this Python, axe-core into .cache/browser.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "browser"
AXE = "axe-core@4.14"
SECONDS = {"apt-get": 90, "pip": 60, "npm": 30}


def missing_programs() -> list[str]:
    """Of Chromium and its driver."""
    return [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]


def install_chromium() -> str | None:
    """Why it is not there afterwards; None if it is."""
    if not missing_programs():
        return None
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return f"{' and '.join(missing_programs())} missing; only root can install them with apt"
    quiet = ("apt-get", "-qq", "-o", "Acquire::http::Timeout=10", "-o", "Acquire::Retries=0")
    packages = ("chromium", "chromium-driver", "fonts-dejavu-core")
    return succeed((*quiet, "update")) or succeed(
        (*quiet, "install", "-y", "--no-install-recommends", *packages)
    )


def install_selenium(pip_arguments: Sequence[str]) -> str | None:
    """The same for selenium."""
    if find_spec("selenium") is not None:
        return None
    pip = (sys.executable, "-m", "pip", "install", "-q", *pip_arguments)
    return succeed((*pip, "--constraint", str(ROOT / "constraints.txt"), "selenium"), "pip")


def install_axe() -> str | None:
    """The same for axe-core."""
    if (CACHE / "node_modules" / "axe-core").exists():
        return None
    if shutil.which("npm") is None:
        return "axe-core is fetched by npm, which is missing"
    CACHE.mkdir(parents=True, exist_ok=True)
    quiet = ("--no-save", "--no-audit", "--no-fund", "--silent")
    return succeed(("npm", "install", *quiet, "--prefix", str(CACHE), AXE))


def succeed(command: Sequence[str], name: str | None = None) -> str | None:
    """Runs a command; why it failed, or None."""
    name = name or command[0]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, timeout=SECONDS[name], check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{name} did not answer within {SECONDS[name]} s"
    last = done.stderr.strip().rpartition("\n")[2]
    return None if done.returncode == 0 else f"{name}: {last}"


def main() -> None:
    for failed in (install_chromium(), install_selenium(sys.argv[1:]), install_axe()):
        if failed:
            print(f"browser tests: {failed}")


if __name__ == "__main__":
    main()

"""``python scripts/newest_python.py``: the Python that the newest set of versions is tried with.

Prints the path of Python 3.13 where one is found by name, on the PATH or among pyenv's versions;
otherwise the path of the Python that runs this.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WANTED = "3.13"


def main() -> int:
    """Print one path."""
    print(next((path for path in candidates() if is_wanted(path)), sys.executable))
    return 0


def candidates() -> Iterator[str]:
    """On the PATH, then pyenv's, the latest first."""
    named = shutil.which(f"python{WANTED}")
    if named:
        yield named
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = pyenv.glob(f"{WANTED}.*/bin/python")
    for path in sorted(found, key=lambda p: numbers(p.parents[1].name), reverse=True):
        yield str(path)


def numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def is_wanted(path: str) -> bool:
    """Whether it runs, has what an environment needs and is that Python; pyenv's own stands on the
    PATH under every name."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == WANTED


if __name__ == "__main__":
    sys.exit(main())

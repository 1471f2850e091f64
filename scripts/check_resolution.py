"""``python scripts/check_resolution.py``: do the extras resolve, and does constraints.txt pin all?

Nothing is installed: uv reads metadata and solves, for Linux x86-64 and each Python below, free and
with constraints.txt. The first time takes minutes. uv must be on the PATH; which package index it
asks is its own setting (UV_DEFAULT_INDEX, UV_INDEX, UV_FIND_LINKS), since it does not read pip's.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12")
PLATFORM = "x86_64-manylinux_2_28"
EXTRAS = (
    ("train", "gguf", "dev"),
    ("unsloth",),
    ("ray",),
    ("trackio",),
    ("wandb",),
    ("tensorboard",),
    ("unsloth", "gguf", "dev", "bench", "ray", "trackio", "wandb", "tensorboard"),
)
# Packages whose version hangs on the Python, so that no single pin fits.
UNPINNED = {"setuptools"}


def main() -> int:
    """Print a line per resolution; 0 if all hold, 1 if one does not, 2 without uv."""
    uv = shutil.which("uv")
    if uv is None:
        print("uv is not on the PATH: python -m pip install uv", file=sys.stderr)
        return 2
    pinned = {name for name, _ in pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))}
    failed = 0
    for extras in EXTRAS:
        for python in PYTHONS:
            for constrained in (False, True):
                fault, text = resolve(uv, extras, python, pinned if constrained else None)
                failed += fault
                label = f"{','.join(extras)} | {python} | {'pinned' if constrained else 'free'}"
                print(f"{'FAIL' if fault else 'ok'} | {label} | {text}", flush=True)
    return 1 if failed else 0


def resolve(
    uv: str, extras: tuple[str, ...], python: str, pinned: set[str] | None
) -> tuple[bool, str]:
    """(does it fail, what to say) for one set of extras; ``pinned`` None: without constraints."""
    command = [uv, "pip", "compile", "pyproject.toml", "--quiet", "--no-header", "--no-annotate"]
    command += ["--python-version", python, "--python-platform", PLATFORM]
    for extra in extras:
        command += ["--extra", extra]
    if pinned is not None:
        command += ["--constraint", "constraints.txt"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return True, done.stderr.strip()
    found = pins(done.stdout)
    missing = [] if pinned is None else [n for n, _ in found if n not in pinned | UNPINNED]
    if missing:
        return True, f"constraints.txt does not pin {', '.join(missing)}"
    shown = ("torch", "transformers", "trl", "vllm", "unsloth", "ray", "numpy", "certifi")
    versions = [f"{name} {version}" for name, version in found if name in shown]
    return False, f"{len(found)} packages: {', '.join(versions)}"


def pins(text: str) -> list[tuple[str, str]]:
    """(name, version) of each ``name==version`` line, names as PyPI compares them (PEP 503)."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)
    return [(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in found]


if __name__ == "__main__":
    sys.exit(main())

"""``python scripts/check_resolution.py``: do the extras resolve, and are all of them pinned?

Nothing is installed: uv reads metadata and solves, for Linux x86-64 and each Python below, free and
with each set of pins. The first time takes minutes. uv must be on the PATH; which package index it
asks is its own setting (UV_DEFAULT_INDEX, UV_INDEX, UV_FIND_LINKS), since it does not read pip's.

``--write`` first writes constraints-newest.txt anew: what the ranges of pyproject.toml resolve to
today without the extra unsloth.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLATFORM = "x86_64-manylinux_2_28"
# What resolves for the lowest Python fits the later ones, too; the check below proves it.
LOWEST_PYTHON = "3.11"
# Packages whose version hangs on the Python, so that no single pin fits.
UNPINNED = {"setuptools"}


@dataclass(frozen=True)
class VersionSet:
    """One file of pins, with the extras and the Pythons that it is for."""

    file: str
    extras: tuple[tuple[str, ...], ...]
    pythons: tuple[str, ...]

    @property
    def name(self) -> str:
        return "newest" if "newest" in self.file else "pinned"

    def pinned(self) -> set[str]:
        """Names of the packages that have a pin."""
        return {name for name, _ in pins((ROOT / self.file).read_text(encoding="utf-8"))}


PINNED = VersionSet(
    "constraints.txt",
    (
        ("train", "gguf", "dev"),
        ("unsloth",),
        ("ray",),
        ("trackio",),
        ("wandb",),
        ("tensorboard",),
        ("browser",),
        ("unsloth", "gguf", "dev", "bench", "browser", "ray", "trackio", "wandb", "tensorboard"),
    ),
    ("3.11", "3.12"),
)
NEWEST = VersionSet(
    "constraints-newest.txt", (("train",), ("train", "gguf", "dev")), ("3.11", "3.13", "3.14")
)
HEADER = """\
# Today's releases, for whoever trains with transformers, PEFT and TRL alone: what the ranges of
# pyproject.toml resolve to on Linux for the extras train, gguf and dev, written by
# `scripts/check_resolution.py --write`. The extra unsloth wants older ones: constraints.txt.
"""


def main() -> int:
    """Print a line per resolution; 0 if all hold, 1 if one does not, 2 without uv."""
    uv = shutil.which("uv")
    if uv is None:
        print("uv is not on the PATH: python -m pip install uv", file=sys.stderr)
        return 2
    if "--write" in sys.argv[1:]:
        write(uv)
    failed = 0
    for versions in (PINNED, NEWEST):
        for extras in versions.extras:
            for python in versions.pythons:
                for constrained in (False, True):
                    fault, text = resolve(uv, extras, python, versions if constrained else None)
                    failed += fault
                    label = f"{','.join(extras)} | {python} | "
                    label += versions.name if constrained else "free"
                    print(f"{'FAIL' if fault else 'ok'} | {label} | {text}", flush=True)
    return 1 if failed else 0


def write(uv: str) -> None:
    """Pin the newest set anew; raises CalledProcessError where nothing fits."""
    done = compiled(uv, NEWEST.extras[-1], LOWEST_PYTHON)
    done.check_returncode()
    found = [f"{name}=={version}\n" for name, version in pins(done.stdout) if name not in UNPINNED]
    (ROOT / NEWEST.file).write_text(HEADER + "".join(sorted(found)), encoding="utf-8")


def resolve(
    uv: str, extras: tuple[str, ...], python: str, versions: VersionSet | None
) -> tuple[bool, str]:
    """(does it fail, what to say) for one set of extras; ``versions`` None: without constraints."""
    done = compiled(uv, extras, python, versions.file if versions else None)
    if done.returncode != 0:
        return True, done.stderr.strip()
    found = pins(done.stdout)
    if versions is not None:
        missing = [name for name, _ in found if name not in versions.pinned() | UNPINNED]
        if missing:
            return True, f"{versions.file} does not pin {', '.join(missing)}"
    shown = ("torch", "transformers", "trl", "vllm", "unsloth", "ray", "numpy", "certifi")
    named = [f"{name} {version}" for name, version in found if name in shown]
    return False, f"{len(found)} packages: {', '.join(named)}"


def compiled(
    uv: str, extras: tuple[str, ...], python: str, constraints: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """One answer of uv."""
    command = [uv, "pip", "compile", "pyproject.toml", "--quiet", "--no-header", "--no-annotate"]
    command += ["--python-version", python, "--python-platform", PLATFORM]
    for extra in extras:
        command += ["--extra", extra]
    if constraints is not None:
        command += ["--constraint", constraints]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def pins(text: str) -> list[tuple[str, str]]:
    """(name, version) of each ``name==version`` line, names as PyPI compares them (PEP 503)."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)
    return [(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in found]


if __name__ == "__main__":
    sys.exit(main())

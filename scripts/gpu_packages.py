"""Fetch the packages of the extra unsloth that tests/gpu_contract reads; no GPU is needed.

python scripts/gpu_packages.py FOLDER [arguments for pip ...]

FOLDER/site      Unsloth and what its import asks for, importable beside the environment of tests
FOLDER/sources   vLLM's Python files, to be read; its libraries (1 GB) are left in the wheel

Versions are those of constraints.txt. About 0.8 GB are loaded and 1.1 GB stay.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
IMPORTABLE = (
    "unsloth", "unsloth-zoo", "vllm-bnb-plugin", "triton", "torchao", "cut-cross-entropy",
    "diffusers", "msgspec", "tyro", "einops", "hf-transfer", "nest-asyncio", "structlog",
    "docstring-parser", "typeguard", "importlib-metadata", "zipp", "protobuf", "pillow",
)  # fmt: skip
"""Without what they depend on: torchvision wants CUDA, `kernels` makes bitsandbytes ask the hub."""
READ_ONLY = ("vllm",)


def fetch(folder: Path, pip_arguments: Sequence[str]) -> None:
    """Fill both folders anew."""
    site, sources = folder / "site", folder / "sources"
    for old in (site, sources):
        shutil.rmtree(old, ignore_errors=True)
    pip("install", "--target", str(site), *IMPORTABLE, *pip_arguments)
    with tempfile.TemporaryDirectory(dir=folder) as wheels:
        pip("download", "--dest", wheels, *READ_ONLY, *pip_arguments)
        for wheel in Path(wheels).glob("*.whl"):
            unpack_python(wheel, sources)


def pip(command: str, *arguments: str) -> None:
    """One call of pip for wheels of the pinned versions, without what they depend on."""
    always = ["--no-deps", "--only-binary", ":all:", "--constraint", str(CONSTRAINTS)]
    subprocess.run([sys.executable, "-m", "pip", command, *always, *arguments], check=True)


def unpack_python(wheel: Path, target: Path) -> None:
    """The Python files and the metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(target, [n for n in names if n.endswith(".py") or ".dist-info/" in n])


if __name__ == "__main__":
    fetch(Path(sys.argv[1]), sys.argv[2:])

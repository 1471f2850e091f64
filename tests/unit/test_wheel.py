"""The wheel holds every file of the package: code, pages, samples, texts."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
NOTES = {".md"}
"""Read by people in the repository; the program does not need them."""


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel, built from a copy of the sources without a network."""
    # Not imported here: it refuses to take the place of a distutils that was imported before it.
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs setuptools 77 or newer")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return set(ZipFile(wheel).namelist())


def test_every_file_of_the_package_is_in_the_wheel(content: set[str]) -> None:
    files = {
        path.relative_to(ROOT / "src").as_posix()
        for folder, _, names in os.walk(ROOT / "src" / "remote_trainer")
        for path in (Path(folder, name) for name in names)
        if "__pycache__" not in path.parts and path.suffix not in NOTES
    }
    assert len(files) > 200
    assert files - content == set()
    for kind in (".j2", ".jsonl", ".txt", ".css", ".js"):
        assert any(name.endswith(kind) for name in files), kind


def test_the_wheel_holds_nothing_else(content: set[str]) -> None:
    assert {name.split("/")[0] for name in content} == {
        "remote_trainer",
        next(name.split("/")[0] for name in content if name.endswith("/METADATA")),
    }
    assert any(name.endswith("/entry_points.txt") for name in content)
    assert any(name.endswith("/licenses/LICENSE") for name in content)

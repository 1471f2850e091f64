"""The program from its wheel, outside a checkout: from `init` to `report`."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a new environment with the wheel; it sees the libraries of this one, but not
    this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(wheel, check=True)
    (file,) = folder.glob("remote_trainer-*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    # A .pth file adds the folder, but does not read the .pth files in it: among them is that of
    # the checkout.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(file)]
    subprocess.run(install, check=True)
    return folder / "venv" / "bin" / "remote-trainer"


def test_init_check_train_report(program: Path, tmp_path: Path) -> None:
    environment = {key: each for key, each in os.environ.items() if key != "PYTHONPATH"}

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [program, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = "import remote_trainer; print(remote_trainer.__file__)"
    found = subprocess.run(
        [program.with_name("python"), "-c", where],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(program.parents[1]) in found.stdout
    call("init", "mine")
    config = "mine/config.yaml"
    data = "data.train=mine/data.jsonl"
    assert "no problems" in call("check", config, "--set", data)
    short = ["training.max_steps=1", "training.num_generations=2", "evaluation.rows=2"]
    short += ["training.gradient_accumulation_steps=1", "evaluation.samples=1", data]
    call("train", config, *(part for each in short for part in ("--set", each)))
    assert "report.html" in call("report", "runs/first")
    page = (tmp_path / "runs/first/report.html").read_text()
    assert "South America" in page or "question" in page

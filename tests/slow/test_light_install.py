"""The base install in an environment of its own: no torch, and the light commands work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of a fresh environment that holds the base install only."""
    folder = tmp_path_factory.mktemp("light") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        "constraints.txt",
        ".",
    ]
    subprocess.run(install, cwd=ROOT, check=True)
    return python


def call(python: Path, *arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [python, "-m", "remote_trainer.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "REMOTE_TRAINER_CACHE": str(cwd / "no-cache")},
        check=False,
    )


def test_base_install_has_no_torch_and_checks_configs(light: Path, tmp_path: Path) -> None:
    listed = subprocess.run(
        [light, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True
    )
    names = {package["name"] for package in json.loads(listed.stdout)}
    assert "pydantic" in names
    assert not names & {"torch", "transformers", "trl", "peft", "datasets", "bitsandbytes"}
    done = call(light, "check", "configs/supervised.yaml", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["batches"]["completions_per_update"] == 16


def test_modules_of_the_light_part_import(light: Path) -> None:
    modules = [
        "remote_trainer.config",
        "remote_trainer.rewards",
        "remote_trainer.data",
        "remote_trainer.engine",
        "remote_trainer.report",
        "remote_trainer.evaluation",
        "remote_trainer.pipeline.train",
        "remote_trainer.pipeline.check",
    ]
    subprocess.run([light, "-c", f"import {', '.join(modules)}"], check=True, cwd="/")


def test_report_is_written_without_torch(light: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.resolved.yaml").write_text("output_dir: run\n")
    done = call(light, "report", str(run), cwd=tmp_path)
    assert done.returncode == 0
    assert "not evaluated" in (run / "report.html").read_text().lower()


def test_a_new_folder_passes_check(light: Path, tmp_path: Path) -> None:
    assert call(light, "init", "new", cwd=tmp_path).returncode == 0
    done = call(light, "check", "config.yaml", cwd=tmp_path / "new")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_files_of_the_local_page_are_installed(light: Path, tmp_path: Path) -> None:
    names = ["", "static/style.css", "static/charts.js", "static/page.js", "static/plotly.js"]
    code = "\n".join(
        [
            "from pathlib import Path",
            "from remote_trainer.ui.answers import answer_to",
            f"print([answer_to('/' + name, Path('.')).status for name in {names}])",
        ]
    )
    done = subprocess.run([light, "-c", code], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout == b"[200, 200, 200, 200, 200]\n"


def test_doctor_says_what_is_missing(light: Path) -> None:
    done = call(light, "doctor", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    (problem,) = json.loads(done.stdout)["findings"]
    assert problem["message"].startswith("the extra train lacks torch, transformers, trl, ")
    assert problem["command"] == "python -m pip install 'remote-trainer[train]'"


def test_training_says_what_is_missing(light: Path, tmp_path: Path) -> None:
    done = call(light, "train", "configs/supervised.yaml", "--set", f"output_dir={tmp_path}/run")
    assert done.returncode == 2
    assert "train: needs torch, transformers, peft, " in done.stderr
    assert "python -m pip install 'remote-trainer[train]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()

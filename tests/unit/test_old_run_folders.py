"""A run folder that an older version wrote is still resumed, reported, evaluated and exported."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from remote_trainer.cli.app import app
from remote_trainer.config import load_resolved
from remote_trainer.run_dir import RunDir, read_jsonl

FOLDERS = Path(__file__).parents[1] / "run_folders"


def called(*arguments: str) -> int:
    return CliRunner().invoke(app, list(arguments)).exit_code


@pytest.fixture(params=sorted(path.name for path in FOLDERS.iterdir()))
def run_dir(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunDir:
    """The finished run ``run`` of one commit, in the current folder, beside its model and data."""
    shutil.copytree(FOLDERS / request.param, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path / "cache"))
    return RunDir(Path("run"))


def test_it_resumes_with_the_numbers_of_then(run_dir: RunDir) -> None:
    before = read_jsonl(run_dir.metrics)
    shutil.rmtree(run_dir.checkpoint(6))
    shutil.rmtree(run_dir.adapter)
    run_dir.eval.unlink()
    assert called("train", "run.yaml") == 0
    after = read_jsonl(run_dir.metrics)
    assert [line["step"] for line in after] == [line["step"] for line in before]
    assert after[:4] == before[:4]
    resolved = load_resolved(run_dir.resolved_config)
    assert resolved.training.disable_dropout is False  # as that version trained
    assert resolved.training.deterministic is False
    for then, now in zip(before[4:], after[4:], strict=True):
        for key in ("kl", "entropy", "reward", "clipped_share", "floored_share"):
            assert now[key] == pytest.approx(then[key], rel=1e-3), f"update {then['step']}: {key}"


def test_it_is_finished_and_a_second_call_trains_nothing(run_dir: RunDir) -> None:
    weights = (run_dir.adapter / "adapter_model.safetensors").read_bytes()
    assert called("train", "run.yaml") == 0
    assert (run_dir.adapter / "adapter_model.safetensors").read_bytes() == weights
    assert called("train", "run.yaml") == 0  # it still counts as a run of its version
    assert load_resolved(run_dir.resolved_config).evaluation.limit_from == "references"


def test_it_is_reported_and_evaluated(run_dir: RunDir) -> None:
    assert called("report", "run") == 0
    assert "self_certainty" in run_dir.report.read_text()
    assert called("eval", "run", "--data", "eval.jsonl") == 0


def test_it_is_exported_with_a_proof(run_dir: RunDir) -> None:
    assert called("export", "run", "--format", "merged_16bit") == 0
    proof = json.loads((run_dir.root / "merged_16bit" / "proof.json").read_text())
    assert proof["verdict"] == "PASS"

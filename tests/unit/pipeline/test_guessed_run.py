"""A run on CSV whose columns have other names: guessed once, then written in the run folder."""

import json
from pathlib import Path

import pytest
from test_pipeline import text_for

from remote_trainer.config import load_resolved, parse_config
from remote_trainer.pipeline.check import check_config
from remote_trainer.pipeline.evaluate import evaluate_model
from remote_trainer.pipeline.score import score_file
from remote_trainer.pipeline.train import run
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.run_dir import RunDir


def test_a_run_with_guessed_fields(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path / "cache"))
    train, held_out = tmp_path / "t.csv", tmp_path / "e.csv"
    train.write_text("question,solution\n" + "".join(f"What is {i}?,{i}\n" for i in range(8)))
    held_out.write_text("question,solution\nWhat is 9?,9\nWhat is 10?,10\n")
    text = text_for(llama_folder, (train, held_out), tmp_path / "run")
    config = parse_config(text, "c")
    note = f"guessed from the first rows of {train}: data.prompt_field: question, reward.answer_"
    plan = check_config(config)
    assert plan.notes[0].startswith(note)
    assert plan.report is not None
    fields = {"prompt_field": "question", "answer_field": "solution"}
    assert plan.report["train"]["guessed_fields"] == fields
    stages: list[str] = []
    result = run(config, text, watch=ProgressCallbacks(stages.append))
    assert sum(stage.startswith(note) for stage in stages) == 1
    assert result["after"]["answer_logprob"] < 0  # held-out rows have references
    folder = RunDir(tmp_path / "run")
    report = json.loads(folder.data_report.read_text())
    assert report["train"]["guessed_fields"] == fields
    assert report["notes"][0].startswith(note)
    resolved = load_resolved(folder.resolved_config)
    assert resolved.with_data().prompt_field == "question"
    assert [reward.answer_field for reward in resolved.reward] == ["solution", "solution"]
    assert run(config, text) == result  # the same config, the same guess, nothing to do
    again = evaluate_model(str(folder), held_out, base=False, against=None)
    assert again["after"]["answer_logprob"] == pytest.approx(result["after"]["answer_logprob"])
    given = tmp_path / "s.csv"
    given.write_text("question,completion,solution\nWhat is 9?,9,9\n")
    assert score_file(config, given, tmp_path / "out.jsonl") == 1
    scored = json.loads((tmp_path / "out.jsonl").read_text())
    assert (scored["question"], scored["completion"]) == ("What is 9?", "9")
    assert scored["rewards"]["supervised"] > 0

"""Runs on data that is not JSONL with the usual keys."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_pipeline import text_for

from remote_trainer.config import load_resolved, parse_config
from remote_trainer.pipeline import export_place
from remote_trainer.pipeline.check import check_config
from remote_trainer.pipeline.evaluate import evaluate_model
from remote_trainer.pipeline.export_place import with_files_found
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


def test_a_dataset_of_the_hub_is_not_looked_up_in_the_folder_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_in, here = tmp_path / "made", tmp_path / "here"
    for folder in (made_in, here):
        folder.mkdir()
    (made_in / "rows").mkdir()
    (made_in / "rows/held.d").mkdir()
    monkeypatch.chdir(here)
    record = SimpleNamespace(made_in=str(made_in))
    monkeypatch.setattr(export_place, "read_record", lambda run: record)
    config = parse_config("data: {train: 'owner/name:test', eval: rows/held.d}", "c")
    data = with_files_found(config, RunDir(tmp_path)).with_data()
    assert (data.train, data.eval) == ("owner/name:test", str(made_in / "rows/held.d"))
    config = parse_config("data: {train: rows.csv, eval: none}", "c")
    data = with_files_found(config, RunDir(tmp_path)).with_data()
    assert (data.train, data.eval) == (str(made_in / "rows.csv"), "none")

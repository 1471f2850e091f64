"""`remote-trainer init`: what it writes passes `check`, and what it guesses."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from remote_trainer.cli.app import app
from remote_trainer.config import load_config
from remote_trainer.config.schema import TrainingSettings
from remote_trainer.errors import UserInputError
from remote_trainer.starter import folder as starter
from remote_trainer.starter import start_folder
from remote_trainer.starter.guess import Fields, guess_fields
from remote_trainer.starter.settings import completion_limit

DATA = Path(__file__).parents[3] / "data"
FILES = ["NEXT_STEPS.md", "config.schema.json", "config.yaml", "data.jsonl"]
TURNS = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("mode", ["--supervised", "--unsupervised"])
def test_the_new_folder_passes_check_from_inside(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path / "cache"))
    made = CliRunner().invoke(app, ["init", str(tmp_path / "my run"), mode])
    assert made.exit_code == 0, made.output
    assert made.output.splitlines()[-1] == (
        f"next: cd '{tmp_path}/my run' && remote-trainer check config.yaml"
    )
    assert names(tmp_path / "my run") == FILES
    monkeypatch.chdir(tmp_path / "my run")
    checked = CliRunner().invoke(app, ["check", "config.yaml"])
    assert checked.exit_code == 0, checked.output
    assert "rows: 180 for training, 20 held out" in checked.output


@pytest.mark.parametrize("mode", ["supervised", "unsupervised"])
def test_the_samples_are_rows_of_the_shipped_data(mode: str) -> None:
    lines = (DATA / f"train_{mode}.jsonl").read_text().splitlines()
    sample = Path(starter.__file__).with_name(f"sample_{mode}.jsonl").read_text().splitlines()
    assert sample == lines[:200]


def test_each_setting_has_the_docstring_of_the_schema_as_its_comment(tmp_path: Path) -> None:
    start_folder(tmp_path / "new")
    lines = (tmp_path / "new/config.yaml").read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=config.schema.json"
    place = lines.index("  learning_rate: 0.0004")
    meaning = TrainingSettings.model_fields["learning_rate"].description
    assert lines[place - 1] == f"  # {meaning}"
    assert "    fluency_weight: 1.0" in lines
    config = load_config(tmp_path / "new/config.yaml")
    assert [reward.type for reward in config.reward] == ["supervised"]
    assert config.training.max_completion_length == 64  # "South America": 13 characters
    assert config.with_data().train == "data.jsonl"


def test_a_file_is_copied_and_its_keys_are_guessed(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "output": "x" * 130, "id": i} for i in range(8)]
    file = write_rows(tmp_path / "pairs.jsonl", *rows)
    said = start_folder(tmp_path / "new", source=file)
    assert said == [
        f"data.jsonl: a copy of {file}",
        "data.prompt_field: question (guessed from the first 100 rows)",
        "supervised: the reference answers are in answer_field: output",
    ]
    config = load_config(tmp_path / "new/config.yaml")
    assert config.with_data().prompt_field == "question"
    assert [reward.answer_field for reward in config.reward] == ["output"]
    assert config.training.max_completion_length == 128  # 130 / 2 = 65, the next power of two
    assert (tmp_path / "new/data.jsonl").read_bytes() == file.read_bytes()
    assert '{"question": "...", "output": "..."}' in (tmp_path / "new/NEXT_STEPS.md").read_text()


def test_a_large_file_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "COPIED_BYTES", 10)
    write_rows(tmp_path / "rows.jsonl", *({"prompt": f"{i}?"} for i in range(8)))
    monkeypatch.chdir(tmp_path)
    start_folder(Path("a/new"), source=Path("rows.jsonl"))
    assert load_config("a/new/config.yaml").with_data().train == "../../rows.jsonl"
    assert "data.jsonl" not in names(tmp_path / "a/new")


def test_rows_without_answers_are_unsupervised(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", *({"text": f"{i}?"} for i in range(8)))
    start_folder(tmp_path / "new", source=file)
    config = load_config(tmp_path / "new/config.yaml")
    assert [reward.type for reward in config.reward] == ["inverse_loss"]
    assert config.training.max_completion_length == 64
    with pytest.raises(UserInputError, match=r"--supervised: not every row of .* add a key 'answ"):
        start_folder(tmp_path / "other", supervised=True, source=file)
    assert not (tmp_path / "other").exists()


GUESSES: list[tuple[list[dict[str, Any]], Fields]] = [
    ([{"prompt": "a", "question": "b", "answer": 1, "label": "c"}], Fields("prompt", "answer")),
    ([{"instruction": "a", "input": "", "response": "b"}], Fields("instruction", "response")),
    ([{"query": "a", "target": "b"}, {"query": "a", "target": " "}], Fields("query", None)),
    ([{"problem": TURNS[:1], "solution": ["x", "y"]}], Fields("problem", "solution")),
    ([{"messages": TURNS}], Fields("prompt", "answer", conversations=True)),
    ([{"messages": TURNS}, {"messages": TURNS[:1]}], Fields("prompt", None, conversations=True)),
]


@pytest.mark.parametrize(("rows", "fields"), GUESSES)
def test_the_keys_that_fit_all_rows_are_guessed(rows: list[dict[str, Any]], fields: Fields) -> None:
    assert guess_fields(rows, "f.jsonl") == fields


def test_what_cannot_be_guessed_is_refused_with_the_keys_found() -> None:
    with pytest.raises(UserInputError, match="'question' and 'text' could each be the prompt; ren"):
        guess_fields([{"question": "a", "text": "b"}], "f.jsonl")
    with pytest.raises(UserInputError, match="rows; found keys: a, b; rename one to 'prompt'"):
        guess_fields([{"a": "x"}, {"b": "y"}], "f.jsonl")
    with pytest.raises(UserInputError) as caught:
        guess_fields([{"a": "x", "output": "y", "label": "z"}], "f.jsonl")
    first, second = map(str, caught.value.problems)
    assert first.startswith("f.jsonl: no key holds the prompt of each of the first 1 rows")
    assert second == (
        "f.jsonl: 'output' and 'label' could each be the answer; rename the right one to 'answer'"
    )


@pytest.mark.parametrize(
    ("characters", "tokens"), [(0, 64), (128, 64), (129, 128), (700, 512), (10**6, 512)]
)
def test_the_limit_is_a_power_of_two_over_half_the_characters(characters: int, tokens: int) -> None:
    assert completion_limit(characters) == tokens


def test_every_problem_is_listed_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "a"}\nnot json\n')
    done = CliRunner().invoke(app, ["init", str(tmp_path / "full"), "--from", str(file)])
    assert isinstance(done.exception, UserInputError)
    folder, line = map(str, done.exception.problems)
    assert folder == f"{tmp_path}/full: exists and is not empty; write the name of a new folder"
    assert line.startswith(f"{file}:2: not valid JSON at column 1")
    assert names(tmp_path / "full") == ["file"]
    with pytest.raises(UserInputError, match=r"rows\.jsonl: is a file; write the path of a folder"):
        start_folder(file)
    with pytest.raises(UserInputError, match=r"full: the folder holds no \.jsonl, \.csv or"):
        start_folder(tmp_path / "new", source=tmp_path / "full")
    with pytest.raises(UserInputError, match=r"no\.jsonl: no such file"):
        start_folder(tmp_path / "new", source=tmp_path / "no.jsonl")
    assert names(tmp_path) == ["full", "rows.jsonl"]


def test_completions_can_be_the_answers(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "completion": "b"} for i in range(8)]
    file = write_rows(tmp_path / "rows.jsonl", *rows)
    start_folder(tmp_path / "new", source=file)
    config = load_config(tmp_path / "new/config.yaml")
    assert {reward.answer_field for reward in config.reward if reward.needs_answer} == {
        "completion"
    }


def test_a_csv_file_keeps_its_name_s_ending(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    lines = [f"What is {i}?,{i}" for i in range(8)]
    file.write_text("\n".join(["question,target", *lines]) + "\n")
    said = start_folder(tmp_path / "new", source=file)
    assert said[0] == f"data.csv: a copy of {file}"
    data = load_config(tmp_path / "new/config.yaml").with_data()
    assert (data.train, data.prompt_field) == ("data.csv", "question")


def test_the_working_directory_can_be_filled_if_it_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start_folder(Path("."))
    assert sorted(os.listdir()) == FILES


def test_an_interrupted_init_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt("now")

    monkeypatch.setattr(starter, "next_steps", interrupt)
    with pytest.raises(KeyboardInterrupt, match="now"):
        start_folder(tmp_path / "new")
    assert names(tmp_path) == []

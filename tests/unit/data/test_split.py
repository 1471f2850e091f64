"""Held-out rows: whole prompts, the old split where all differ, and overlap that is told."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data import encode_data, load_data
from remote_trainer.data.rows import fingerprint
from remote_trainer.data.split import HELD_OUT_MOST, hold_out
from remote_trainer.records import Row

Write = Callable[[str, str | bytes], Path]
ROOT = Path(__file__).parents[3]


def config_for(train: Path, evaluate: str = "auto", extra: str = "") -> RunConfig:
    return parse_config(
        f"data: {{train: '{train}', eval: '{evaluate}'}}\n"
        f"training: {{gradient_accumulation_steps: 1}}\n{extra}",
        "c",
    )


def rows_file(write: Write, name: str, prompts: list[Any]) -> Path:
    return write(name, "\n".join(json.dumps({"prompt": p, "answer": "x"}) for p in prompts))


@pytest.mark.parametrize("seed", [0, 7])
def test_the_shipped_rows_are_split_as_ever(seed: int) -> None:
    lines = (ROOT / "data/train_supervised.jsonl").read_text().splitlines()
    chosen = sorted(random.Random(seed).sample(range(len(lines)), round(len(lines) * 0.1)))
    config = parse_config(
        f"data: {{train: '{ROOT}/data/train_supervised.jsonl'}}\ntraining: {{seed: {seed}}}", "c"
    )
    data = load_data(config)
    prompts = [json.loads(line)["prompt"] for line in lines]
    assert [row.prompt for row in data.eval] == [prompts[i] for i in chosen]
    assert [row.prompt for row in data.train] == [
        prompt for i, prompt in enumerate(prompts) if i not in chosen
    ]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=400), st.integers(0, 5))
def test_no_prompt_stands_on_both_sides(asked: list[int], seed: int) -> None:
    split = hold_out(asked, seed)
    train, held = [asked[i] for i in split.train], [asked[i] for i in split.eval]
    beyond = [asked[i] for i in split.beyond]
    assert not set(train) & set(held)
    assert not set(train) & set(beyond)
    assert sorted([*train, *held, *beyond]) == sorted(asked)
    assert len(held) <= HELD_OUT_MOST
    assert bool(held) == (len(set(asked)) > 1)
    assert train  # at most half of the rows leave, whatever their prompts


def test_more_rows_of_one_prompt_than_are_held_out_are_counted(write: Write) -> None:
    prompts = ["a"] * 900 + ["b"] * 300
    path = rows_file(write, "t.jsonl", prompts)
    data = load_data(config_for(path))
    assert {row.prompt for row in data.eval} == {"b"}
    assert (len(data.train), len(data.eval)) == (900, 200)
    left_out = data.train_source.left_out
    assert left_out.counts == {"same prompt as a held-out row": 100}
    assert left_out.places["same prompt as a held-out row"][0] == f"{path}:1101"
    assert data.notes == (
        "the 200 held-out rows have 1 different prompt: rows with the same prompt are held out "
        "together",
    )


def test_where_all_ask_the_same_nothing_is_held_out_and_it_is_said(write: Write) -> None:
    data = load_data(config_for(rows_file(write, "t.jsonl", ["a"] * 50)))
    assert (len(data.train), len(data.eval), data.eval_source) == (50, 0, None)
    assert "no rows are held out: all 50 rows" in data.notes[0]


def test_equal_is_what_the_template_sees() -> None:
    turn = {"role": "user", "content": "a"}
    text, turns = Row("a", {}, "f:1"), Row([turn], {}, "f:2")
    system = Row([{"role": "system", "content": "S"}, turn], {}, "f:3")
    tools = Row("a", {}, "f:4", [{"name": "f"}])
    assert fingerprint(text, None) == fingerprint(turns, None)
    assert fingerprint(text, "S") == fingerprint(system, "S") == fingerprint(system, None)
    assert fingerprint(text, None) != fingerprint(text, "S")
    assert fingerprint(text, None) != fingerprint(tools, None)
    assert fingerprint(Row("a ", {}, "f:5"), None) != fingerprint(text, None)


def test_overlap_with_a_given_file_is_counted_and_told(llama: Any, write: Write) -> None:
    train = rows_file(write, "t.jsonl", ["a", "b", [{"role": "user", "content": "c"}]])
    held = rows_file(write, "e.jsonl", ["x", "b", "c", "y"])
    config = config_for(train, str(held))
    data = load_data(config)
    assert len(data.notes) == 1
    assert data.notes[0].startswith(
        f"2 of 4 held-out rows have a prompt that is also in the training rows ({held}:2, {held}:3)"
    )
    report = encode_data(data, llama.prompt_tokenizer, config).report
    assert report["eval"]["also_in_train"] == {"rows": 2, "lines": [f"{held}:2", f"{held}:3"]}
    first_only = config_for(train, str(held), "evaluation: {rows: 1}")
    assert load_data(first_only).notes == ()


def test_each_row_of_a_file_is_counted_once(llama: Any, write: Write) -> None:
    prompts = [f"question {i}" for i in range(40)] + ["word " * 60]
    lines = [json.dumps({"prompt": p, "answer": "x"}) for p in prompts]
    lines[3] = json.dumps({"prompt": "no answer"})
    path = write("t.jsonl", "\n".join(lines))
    config = parse_config(
        f"data: {{train: '{path}'}}\nreward: {{type: supervised}}\nevaluation: {{rows: 15}}\n"
        "training: {gradient_accumulation_steps: 1, max_prompt_length: 50}",
        "c",
    )
    report = encode_data(load_data(config), llama.prompt_tokenizer, config).report
    train, held = report["train"], report["eval"]
    assert train["rows_read"] == 41
    placed = train["rows_kept"] + held["rows_kept"]
    left = sum(train["rows_left_out"].values()) + sum(held["rows_left_out"].values())
    assert placed + left == 41
    places = [p for use in (train, held) for found in use["left_out"].values() for p in found]
    assert len(places) == len(set(places)) == left
    assert f"{path}:4" in places
    assert f"{path}:41" in places
    assert train["left_out"]["no reference answer"] == [f"{path}:4"]
    assert "no reference answer" not in held["left_out"]
    assert held["rows_left_out"]["beyond evaluation.rows"] == 5

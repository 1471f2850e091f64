"""answer_field and prompt_field may be paths into a row; messages name the missing part."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data import load_data, load_score_rows
from remote_trainer.errors import UserInputError
from remote_trainer.evaluation.answers import references_of
from remote_trainer.records import EncodedRow, Row
from remote_trainer.rewards import RewardConfig, RewardFunction, create_reward_function

Write = Callable[[str, str | bytes], Path]
FIELD = "answers.text.0"


def config_for(train: Path, prompt: str = "prompt", answer: str = FIELD) -> RunConfig:
    return parse_config(
        f"data: {{train: '{train}', eval: none, prompt_field: '{prompt}'}}\n"
        f"reward: {{type: token_f1, answer_field: '{answer}'}}\n"
        "training: {gradient_accumulation_steps: 1}",
        "c",
    )


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def squad(*texts: str) -> dict[str, Any]:
    return {"prompt": "q", "answers": {"text": list(texts)}}


def test_rows_without_a_value_at_the_path_are_left_out_by_their_missing_part(write: Write) -> None:
    path = write("data.jsonl", lines(squad("a"), squad(), {"prompt": "q"}, {**squad(), FIELD: "b"}))
    data = load_data(config_for(path))
    assert [row.source for row in data.train] == [f"{path}:1", f"{path}:4"]
    assert data.train_source.left_out.places == {
        "no reference answer (answers.text.0: list 'answers.text' is empty)": [f"{path}:2"],
        "no reference answer (answers.text.0: 'answers' is missing)": [f"{path}:3"],
    }


def test_a_path_that_no_row_has_is_an_error_with_the_missing_part(write: Write) -> None:
    path = write("data.jsonl", "\n\n" + lines(squad(), squad()))
    with pytest.raises(UserInputError) as caught:
        load_data(config_for(path))
    assert str(caught.value) == (
        f"{path}:3: answers.text.0: list 'answers.text' is empty; no other row has a reference "
        "answer; set reward.answer_field, or use a reward that needs no reference (inverse_loss)"
    )


def test_a_path_into_a_text_is_an_error_of_its_row(write: Write) -> None:
    path = write("data.jsonl", lines(squad("a"), {"prompt": "q", "answers": "a"}))
    with pytest.raises(UserInputError) as caught:
        load_data(config_for(path))
    assert str(caught.value) == f"{path}:2: answers.text.0: 'answers' is a str, which has no 'text'"
    write("data.jsonl", lines(squad("a"), {"prompt": "q", "answers": {"text": [{"x": 1}]}}))
    with pytest.raises(UserInputError, match=r":2: 'answers.text.0' is \{\"x\": 1\}; write a stri"):
        load_data(config_for(path))


def test_a_prompt_may_be_inside_a_row(write: Write) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    row = {"turns": [{"text": "q"}, {"text": "a"}], "chat": {"turns": turns}, "answers": {}}
    path = write("data.jsonl", lines(row))
    data = load_data(config_for(path, "turns.0.text", "turns.1.text"))
    assert [each.prompt for each in data.train] == ["q"]
    assert data.train[0].fields == row
    data = load_data(config_for(path, "chat.turns"))
    assert data.train[0].prompt == turns[:1]
    assert data.train[0].fields[FIELD] == "a"  # the last turn is the answer
    with pytest.raises(UserInputError) as caught:
        load_data(config_for(path, "turns.2.text"))
    assert str(caught.value) == (
        f"{path}:1: turns.2.text: list 'turns' has no item 2 (the last one is 1); found keys: "
        "answers, chat, turns (set data.prompt_field to the right one)"
    )


def test_several_keys_make_a_prompt(write: Write) -> None:
    rows: list[dict[str, Any]] = [
        {"system": "s", "a": {"b": "x"}, "answer": "1"},
        {"system": "s", "a": {"b": " "}, "answer": "1"},
        {"system": "s", "a": None, "answer": "1"},
        {"system+a.b": "literal", "system": "s", "answer": "1"},
    ]
    path = write("data.jsonl", lines(*rows))
    data = load_data(config_for(path, "system+a.b", "answer"))
    assert [row.prompt for row in data.train] == ["s\n\nx", "s", "s", "literal"]
    write("data.jsonl", lines({"a": {"b": "x"}}, {"system": "s", "a": {"b": [1]}}, {"system": " "}))
    with pytest.raises(UserInputError, match="missing") as caught:
        load_data(config_for(path, "system+a.b", "answer"))
    assert [problem.message.partition(";")[0] for problem in caught.value.problems] == [
        "system+a.b: 'system' is missing",
        "'system+a.b' joins texts, but one is a list",
        "'system+a.b' is empty",
    ]


def test_rewards_and_evaluation_read_the_path(llama: Any, write: Write) -> None:
    reward = RewardFunction(llama, [RewardConfig(type="token_f1", answer_field=FIELD)])
    plain = RewardFunction(llama, [RewardConfig(type="token_f1")])
    row = Row("q", {"answers": {"text": ["red apples", "x"]}}, "")
    said = Row("q", {"answer": "red apples"}, "")
    nothing = Row("q", {"answers": {"text": []}}, "")
    texts = ["red apples", "apples", "x"]
    expected = [each.reward for each in plain.judge(plain.samples([said] * 3, texts))]
    assert expected == pytest.approx([1, 2 / 3, 0])
    assert [each.reward for each in reward.judge(reward.samples([row] * 3, texts))] == expected
    assert [each.reward for each in reward.judge(reward.samples([nothing], ["x"]))] == [None]
    assert references_of(EncodedRow(row, (1,), ""), FIELD) == ("red apples",)
    path = write("s.jsonl", lines({**squad("a"), "completion": "b"}))
    scored, _ = load_score_rows(path, config_for(path))
    assert references_of(EncodedRow(scored[0].row, (1,), ""), FIELD) == ("a",)


def test_columns_of_stock_trl_hold_the_path(llama: Any) -> None:
    reward = create_reward_function(
        llama.model,
        llama.prompt_tokenizer.tokenizer,
        reward_type="exact_match",
        answer_field="answers.text",
    )
    answers = [{"text": ["5", "five"]}, {"text": ["6"]}, {"text": []}]
    said = ["five", "five", "five"]
    assert reward(prompts=["q"] * 3, completions=said, answers=answers) == [1.0, 0.0, None]

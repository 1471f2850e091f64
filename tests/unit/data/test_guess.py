"""Fields that the config does not name are guessed, if only one candidate fits; or none is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data import encode_data, load_data, load_score_rows
from remote_trainer.data.load import load_eval_rows
from remote_trainer.errors import UserInputError

Write = Callable[[str, str | bytes], Path]
Rows = list[dict[str, Any]]


def config_for(
    train: Path, reward: str = "{type: supervised}", data: str = "eval: none"
) -> RunConfig:
    return parse_config(
        f"data: {{train: '{train}', {data}}}\nreward: {reward}\n"
        "training: {gradient_accumulation_steps: 1}",
        "c",
    )


def lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


GUESSED: list[tuple[Rows, dict[str, str], Any, Any]] = [
    (
        [{"question": "q", "solution": 5, "id": 1}, {"question": "r", "solution": "6"}],
        {"prompt_field": "question", "answer_field": "solution"},
        "q",
        5,
    ),
    ([{"problem": "q", "answer": "a"}], {"prompt_field": "problem"}, "q", "a"),
    ([{"prompt": "q", "completion": "a"}], {"answer_field": "completion"}, "q", "a"),
    ([{"prompt": "q", "answers": ["a", "b"]}], {"answer_field": "answers"}, "q", ["a", "b"]),
    (  # a candidate must fit in all rows
        [{"text": "q", "query": "x", "label": "a"}, {"text": "r", "query": " ", "label": "b"}],
        {"prompt_field": "text", "answer_field": "label"},
        "q",
        "a",
    ),
    (
        [{"query": [{"role": "user", "content": "q"}], "target": True}],
        {"prompt_field": "query", "answer_field": "target"},
        [{"role": "user", "content": "q"}],
        True,
    ),
    (  # Alpaca
        [{"instruction": "Add.", "input": "2, 3", "output": "5"}],
        {"prompt_field": "instruction+input", "answer_field": "output"},
        "Add.\n\n2, 3",
        "5",
    ),
    (
        [{"instruction": "Add 2 and 3.", "input": "", "output": "5"}],
        {"prompt_field": "instruction+input", "answer_field": "output"},
        "Add 2 and 3.",
        "5",
    ),
    (
        [{"instruction": "Add 2 and 3.", "response": "5"}],
        {"prompt_field": "instruction", "answer_field": "response"},
        "Add 2 and 3.",
        "5",
    ),
]


@pytest.mark.parametrize(("rows", "fields", "prompt", "answer"), GUESSED)
def test_the_only_field_that_fits_is_taken(
    write: Write, rows: Rows, fields: dict[str, str], prompt: Any, answer: Any
) -> None:
    data = load_data(config_for(write("t.jsonl", lines(rows))))
    guess = data.train_source.guess
    assert guess.fields == fields
    row = data.train[0]
    assert row.prompt == prompt
    assert row.fields[fields.get("answer_field", "answer")] == answer


def test_what_was_guessed_is_said_in_one_line_and_in_the_report(llama: Any, write: Write) -> None:
    rows = [{"question": "q", "context": "c", "solution": "s"}] * 2
    path = write("t.jsonl", lines(rows))
    config = config_for(path)
    data = load_data(config)
    assert data.notes == (
        f"guessed from the first rows of {path}: data.prompt_field: question, "
        "reward.answer_field: solution (write data.prompt_field and reward.answer_field to choose; "
        "other keys: context)",
    )
    guess = data.train_source.guess
    applied = guess.apply(config)
    assert (applied.with_data().prompt_field, applied.answer_field) == ("question", "solution")
    assert config.answer_field == "answer"
    report = encode_data(data, llama.prompt_tokenizer, applied).report["train"]
    assert report["guessed_fields"] == {"prompt_field": "question", "answer_field": "solution"}
    again = load_data(applied)  # as a resolved config: everything is written
    assert (again.train_source.guess.fields, again.notes) == ({}, ())
    assert [row.prompt for row in again.train] == ["q", "q"]


def test_a_written_field_is_never_overridden(write: Write) -> None:
    path = write("t.jsonl", lines([{"question": "q", "solution": "s"}]))
    for data, reward, message in (
        ("prompt_field: prompt, eval: none", "{type: supervised}", "'prompt' is missing"),
        (
            "eval: none",
            "{type: supervised, answer_field: answer}",
            r"no row has a reference answer in 'answer' \(found keys: question, solution\)",
        ),
    ):
        with pytest.raises(UserInputError, match=message):
            load_data(config_for(path, reward, data))


def test_rewards_with_a_written_field_keep_it(write: Write) -> None:
    path = write("t.jsonl", lines([{"prompt": "q", "gold": "g", "target": "t"}]))
    config = config_for(path, "[{type: token_f1, answer_field: gold}, {type: chrf}]")
    config = load_data(config).train_source.guess.apply(config)
    assert [reward.answer_field for reward in config.reward] == ["gold", "target"]


def test_usual_fields_leave_nothing_to_guess(write: Write) -> None:
    for rows in (
        [{"prompt": "q", "answer": "a", "text": "x", "label": "y"}],
        [
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "a"},
                ],
                "label": "good",
            }
        ],
    ):
        path = write("t.jsonl", lines(rows))
        assert load_data(config_for(path)).train_source.guess.fields == {}
    path = write("t.jsonl", lines([{"question": "x", "answer": "y"}, {"prompt": "q"}]))
    with pytest.raises(UserInputError, match=r":1: 'prompt' is missing; found keys: answer, quest"):
        load_data(config_for(path))


def test_a_completion_is_no_answer_beside_one(write: Write) -> None:
    path = write("t.jsonl", lines([{"prompt": "q", "completion": "c", "answer": "a"}]))
    with pytest.raises(UserInputError, match="'completion' is a reserved key; rename it"):
        load_data(config_for(path))


def test_several_or_no_candidates_are_an_error_with_the_keys(write: Write) -> None:
    path = write("t.jsonl", lines([{"question": "q", "text": "t", "answer": "a"}]))
    with pytest.raises(UserInputError) as caught:
        load_data(config_for(path))
    assert str(caught.value) == (
        f"{path}:1: 'prompt' is missing; found keys: answer, question, text (set "
        "data.prompt_field to the right one: 'question' and 'text' fit)"
    )
    write("t.jsonl", lines([{"topic": "q", "answer": "a"}]))
    with pytest.raises(UserInputError, match=r"found keys: answer, topic \(set data.prompt_field"):
        load_data(config_for(path))
    write("t.jsonl", lines([{"prompt": "q", "output": "o", "target": "t"}]))
    with pytest.raises(UserInputError) as caught:
        load_data(config_for(path))
    assert str(caught.value) == (
        f"{path}: no row has a reference answer in 'answer' (found keys: output, prompt, target); "
        "set reward.answer_field: 'output' and 'target' fit, or use a reward that needs no "
        "reference (inverse_loss)"
    )


def test_without_a_reward_that_needs_one_no_answer_is_guessed(write: Write) -> None:
    path = write("t.jsonl", lines([{"question": "q", "label": "good"}]))
    config = config_for(path, "{type: inverse_loss}")
    assert load_data(config).train_source.guess.fields == {"prompt_field": "question"}
    rows, source = load_eval_rows(path, config)  # `eval` compares with it
    assert source.guess.fields == {"prompt_field": "question", "answer_field": "label"}
    assert source.guess.apply(config).answer_field == "label"
    assert [row.prompt for row in rows] == ["q"]


def test_eval_file_has_the_fields_of_train(write: Write) -> None:
    train = write("t.jsonl", lines([{"question": "q", "output": "a"}]))
    held = write("e.csv", "question,output\nr,b\n")
    data = load_data(config_for(train, data=f"eval: '{held}'"))
    assert [(row.prompt, row.fields["output"]) for row in data.eval] == [("r", "b")]
    write("e.csv", "problem,output\nr,b\n")
    with pytest.raises(UserInputError, match=r"e.csv:2: 'question' is missing; found keys: output"):
        load_data(config_for(train, data=f"eval: '{held}'"))


def test_score_guesses_too_but_not_the_completion(write: Write) -> None:
    path = write("s.jsonl", lines([{"question": "q", "completion": "c", "output": "a"}]))
    rows, guess = load_score_rows(path, parse_config("reward: {type: supervised}", "c"))
    assert guess.fields == {"prompt_field": "question", "answer_field": "output"}
    assert [(each.row.prompt, each.completion) for each in rows] == [("q", "c")]

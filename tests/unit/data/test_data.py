"""Data files: good rows survive as they are, bad ones are named by file and line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data import encode_data, load_data, load_score_rows
from remote_trainer.data.readers import open_reader
from remote_trainer.data.row_file import scan
from remote_trainer.data.rows import RowFormat
from remote_trainer.data.split import hold_out
from remote_trainer.errors import Problem, UserInputError

Write = Callable[[str, str | bytes], Path]


def config_for(train: Path, extra: str = "", evaluate: str = "none") -> RunConfig:
    return parse_config(
        f"data: {{train: '{train}', eval: '{evaluate}'}}\n"
        f"training: {{gradient_accumulation_steps: 1}}\n{extra}",
        "c",
    )


GOOD = '{"prompt": "What is 2 + 3?", "answer": "5"}'
SUPERVISED = "reward: {type: supervised}"
WRONG: list[tuple[bytes, str, str]] = [
    (b'{"prompt": "a"', "t.jsonl:2: not valid JSON at column", ""),
    (b"[1]", "t.jsonl:2: found a list; write an object", ""),
    (b'"text"', "t.jsonl:2: found a str; write an object", ""),
    (b'{"question": "a"}', "'prompt' is missing; found keys: question (set data.prompt_field", ""),
    (b'{"prompt": ""}', "t.jsonl:2: 'prompt' is empty; write a string", ""),
    (b'{"prompt": "  "}', "'prompt' is empty", ""),
    (b'{"prompt": 3}', "'prompt' is a int; write a string or a list of messages", ""),
    (b'{"prompt": []}', "'prompt' is a list; write a string or a list of messages", ""),
    (b'{"prompt": [{"role": "user"}]}', 'write {"role": ..., "content": ...}', ""),
    (b'{"prompt": [{"role": "me", "content": "a"}]}', "has the role 'me'; write system, user", ""),
    (b'{"prompt": [{"role": "user", "content": 3}]}', "has the content 3; write a string", ""),
    (
        b'{"prompt": [{"role": "assistant", "content": "a"}]}',
        "has no turn before the assistant turn",
        "",
    ),
    (b'{"prompt": "a", "prompt": "b"}', "duplicate key 'prompt' in this row", ""),
    (b'{"prompt": "a", "score": NaN}', "NaN is not valid JSON", ""),
    (b'{"prompt": "a", "completion_ids": [1]}', "'completion_ids' is a reserved key", ""),
    (b'{"prompt": "\xff"}', "t.jsonl:2: not UTF-8 at byte 13", ""),
    (
        b'{"prompt": "a", "answer": {"x": 5}}',
        "'answer' is {\"x\": 5}; write a string, a n",
        SUPERVISED,
    ),
    (b'{"prompt": "a", "answer": ["x", ["y"]]}', "'answer' holds [\"y\"]; write a st", SUPERVISED),
    (b'{"prompt": "a", "n": 1e999}', "t.jsonl:2: the number 1e999 is too large", ""),
    (b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}", "a number with thousands of digits", ""),
    (b'{"prompt": "a\\ud800"}', "t.jsonl:2: 'prompt' contains \\ud800, half of a surr", ""),
    (b'{"prompt": "a", "k": [{"\\udfff": 1}]}', "'k' contains \\udfff, half of a surr", ""),
    (b'{"a": ' + b"[" * 100_000, "t.jsonl:2: is nested more than 100 levels deep", ""),
    (b'{"prompt": "a", "k": ' + b"[" * 101 + b"]" * 101 + b"}", "more than 100 levels", ""),
    (b'{"prompt": "", "answer": {}}', "'answer' is {}; write a string", SUPERVISED),
    (b'{"prompt": "", "answer": {}}', "'prompt' is empty; write a string", SUPERVISED),
]


@pytest.mark.parametrize(("line", "message", "extra"), WRONG, ids=[m[:40] for _, m, _ in WRONG])
def test_bad_lines_are_named(write: Write, line: bytes, message: str, extra: str) -> None:
    path = write("t.jsonl", GOOD.encode() + b"\n" + line + b"\n")
    with pytest.raises(UserInputError) as caught:
        load_data(config_for(path, extra))
    assert message in str(caught.value)


def test_all_bad_lines_of_both_files_are_listed(write: Write) -> None:
    train = write("t.jsonl", "{}\n{}\n" + GOOD)
    evaluate = write("e.jsonl", "nope\n")
    with pytest.raises(UserInputError, match=r"e\.jsonl:1: .*JSON") as caught:
        load_data(config_for(train, evaluate=str(evaluate)))
    assert [p.where for p in caught.value.problems] == [f"{train}:1", f"{train}:2", f"{evaluate}:1"]


def test_long_lists_of_problems_end_with_a_count(write: Write) -> None:
    with pytest.raises(UserInputError) as caught:
        load_data(config_for(write("t.jsonl", "{}\n" * 50)))
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1].message == "and 30 more lines with problems"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("", "the file has no rows"), ("\n\n", "the file has no rows")],
)
def test_missing_and_empty_files(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "t.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserInputError, match=message):
        load_data(config_for(path))


def test_too_few_rows_for_one_update(write: Write) -> None:
    config = parse_config(f"data: {{train: '{write('t.jsonl', GOOD)}', eval: none}}", "c")
    with pytest.raises(UserInputError, match="only 1 usable rows, but one update needs 2 prompts"):
        load_data(config)


def test_rows_keep_their_fields_bom_and_crlf_do_not_matter(write: Write) -> None:
    rows = [{"prompt": "a ", "answer": "é", "kind": "k", "n": 1}, {"prompt": "b", "n": "x"}]
    text = "\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path = write("t.jsonl", text)
    loaded = load_data(config_for(path)).train
    assert [(row.prompt, dict(row.fields), row.source) for row in loaded] == [
        ("a ", {"answer": "é", "kind": "k", "n": 1}, f"{path}:1"),
        ("b", {"n": "x"}, f"{path}:2"),
    ]


def test_rows_without_a_reference_are_left_out_and_counted(write: Write) -> None:
    path = write("t.jsonl", f'{GOOD}\n{{"prompt": "b"}}\n{{"prompt": "c", "answer": " "}}\n')
    data = load_data(config_for(path, SUPERVISED))
    assert [row.source for row in data.train] == [f"{path}:1"]
    left_out = data.train_source.left_out
    assert left_out.places == {"no reference answer": [f"{path}:2", f"{path}:3"]}
    assert left_out.counts == {"no reference answer": 2}
    assert len(load_data(config_for(path)).train) == 3  # inverse_loss needs none


def test_held_out_rows_may_lack_a_reference_but_not_hold_an_object(write: Write) -> None:
    train = write("t.jsonl", GOOD)
    evaluate = write("e.jsonl", f'{GOOD}\n{{"prompt": "b"}}\n')
    config = config_for(train, SUPERVISED, str(evaluate))
    assert len(load_data(config).eval) == 2
    write("e.jsonl", '{"prompt": "b", "answer": {"x": 5}}\n')
    for extra in ("", SUPERVISED):
        with pytest.raises(UserInputError, match=r"e.jsonl:1: 'answer' is \{.*; write a string"):
            load_data(config_for(train, extra, str(evaluate)))


def test_no_reference_at_all_is_a_wrong_answer_field(write: Write) -> None:
    path = write("t.jsonl", '{"prompt": "a", "gold": "5"}\n')
    with pytest.raises(UserInputError) as caught:
        load_data(config_for(path, SUPERVISED))
    assert "no row has a reference answer in 'answer' (found keys: gold, prompt)" in str(
        caught.value
    )


@pytest.mark.parametrize(("rows", "held"), [(30, 15), (100, 20), (1000, 100), (5000, 200)])
def test_held_out_rows(rows: int, held: int) -> None:
    split = hold_out(range(rows), seed=1)
    assert len(split.eval) == held
    assert sorted([*split.train, *split.eval]) == list(range(rows))
    assert list(split.eval) == sorted(split.eval)
    assert hold_out(range(rows), seed=1) == split
    assert hold_out(range(rows), seed=2) != split


def test_prompts_become_ids_once_with_system_prompt_and_template(llama: Any, write: Write) -> None:
    path = write(
        "t.jsonl",
        '{"prompt": "Name a fruit."}\n'
        '{"prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]}\n',
    )
    config = parse_config(
        f"data: {{train: '{path}', eval: none, system_prompt: Be brief.}}\n"
        "training: {gradient_accumulation_steps: 1}",
        "c",
    )
    rows = encode_data(load_data(config), llama.prompt_tokenizer, config).train
    decode = llama.prompt_tokenizer.tokenizer.decode
    assert [decode(list(row.prompt_ids)) for row in rows] == [
        "<|system|>Be brief.</s><|user|>Name a fruit.</s><|assistant|>",
        "<|system|>S</s><|user|>U</s><|assistant|>",  # a system message of its own stays alone
    ]
    assert rows[0].row.prompt == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Name a fruit."},
    ]


def overlong_config(path: Path, policy: str, limit: int) -> RunConfig:
    return parse_config(
        f"data: {{train: '{path}', eval: none, overlong_prompts: {policy}}}\n"
        f"training: {{gradient_accumulation_steps: 1, max_prompt_length: {limit}}}",
        "c",
    )


def test_overlong_prompts_are_dropped_and_counted_or_refused(llama: Any, write: Write) -> None:
    long = json.dumps({"prompt": "word " * 60})
    path = write("t.jsonl", f"{GOOD}\n{long}\n")
    config = overlong_config(path, "drop", 50)
    data = encode_data(load_data(config), llama.prompt_tokenizer, config)
    assert len(data.train) == 1
    assert data.report["train"]["rows_read"] == 2
    assert data.report["train"]["rows_left_out"] == {"prompt too long": 1}
    assert data.report["train"]["left_out"] == {"prompt too long": [f"{path}:2"]}
    config = overlong_config(path, "refuse", 50)
    with pytest.raises(
        UserInputError, match=r"t.jsonl:2: the prompt has \d+ tokens, over training"
    ):
        encode_data(load_data(config), llama.prompt_tokenizer, config)
    config = overlong_config(path, "drop", 2)
    with pytest.raises(UserInputError, match="0 rows remain after dropping 2 prompts"):
        encode_data(load_data(config), llama.prompt_tokenizer, config)


def test_messages_need_a_chat_template(llama: Any, write: Write) -> None:
    path = write("t.jsonl", '{"prompt": [{"role": "user", "content": "U"}]}\n')
    llama.prompt_tokenizer.tokenizer.chat_template = None
    config = config_for(path)
    with pytest.raises(UserInputError, match="the model has no chat template"):
        encode_data(load_data(config), llama.prompt_tokenizer, config)


def test_score_rows_need_a_completion(write: Write) -> None:
    path = write("s.jsonl", f'{{"prompt": "a", "completion": "b", "answer": "c"}}\n{GOOD}\n')
    with pytest.raises(UserInputError, match=r"s.jsonl:2: 'completion' is None; write a string"):
        load_score_rows(path, parse_config("", "c"))


@given(st.binary(max_size=200))
def test_any_bytes_give_rows_or_named_problems(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "t.jsonl"
    path.write_bytes(content)
    problems: list[Problem] = []
    reader = open_reader(str(path), problems)
    assert reader is not None
    found = scan(reader, RowFormat(), None, problems)
    assert len(found.rows) or problems
    for place in range(len(found.rows)):
        assert found.rows.read(place).prompt
    assert all(problem.where.startswith(str(path)) for problem in problems)

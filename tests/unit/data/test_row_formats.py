"""Rows as people have them: conversations, content parts, tools, numbers and lists as answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data import encode_data, load_data, load_score_rows
from remote_trainer.data.jsonl import RowFault
from remote_trainer.data.rows import RowFormat, fingerprint, shape
from remote_trainer.errors import UserInputError
from remote_trainer.export import verify_transformers as read_transformers
from remote_trainer.llama_cpp.server import with_json_arguments
from remote_trainer.records import Row
from remote_trainer.references import accepted_answers

Write = Callable[[str, str | bytes], Path]
ANSWERED = RowFormat("prompt", ("answer",), ("answer",))
ASKED = {"role": "user", "content": "How far is it?"}
SAID = {"role": "assistant", "content": "Nine miles."}
CALL = {"id": "c1", "type": "function", "function": {"name": "far", "arguments": '{"to": "Ely"}'}}


def read(value: dict[str, Any], form: RowFormat = ANSWERED) -> Row:
    return form.read(value, "f:1")


def fault(value: dict[str, Any], form: RowFormat = ANSWERED) -> str:
    with pytest.raises(RowFault) as caught:
        form.read(value, "f:1")
    return str(caught.value)


def config_for(train: Path, extra: str = "", data: str = "eval: none") -> RunConfig:
    return parse_config(
        f"data: {{train: '{train}', {data}}}\n"
        f"training: {{gradient_accumulation_steps: 1}}\n{extra}",
        "c",
    )


def test_a_conversation_that_ends_with_the_assistant_brings_its_answer() -> None:
    row = read({"messages": [ASKED, SAID], "kind": "k"})
    assert row.prompt == [ASKED]
    assert row.fields == {"kind": "k", "answer": "Nine miles."}
    assert read({"prompt": [ASKED, SAID]}).fields["answer"] == "Nine miles."
    named = RowFormat("chat", ("gold",), ("gold",))
    assert read({"chat": [ASKED, SAID]}, named).fields == {"gold": "Nine miles."}


def test_an_answer_of_its_own_wins_over_the_last_turn() -> None:
    assert read({"messages": [ASKED, SAID], "answer": "9"}).fields["answer"] == "9"
    assert read({"messages": [ASKED, SAID], "answer": 9}).fields["answer"] == 9
    assert read({"messages": [ASKED, SAID], "answer": None}).fields["answer"] == "Nine miles."
    assert read({"messages": [ASKED, SAID], "answer": " "}).fields["answer"] == "Nine miles."


def test_columns_of_other_rows_are_null() -> None:
    nulls = {"prompt": None, "answer": None, "tools": None, "functions": None}
    asked = {**ASKED, "name": None, "tool_calls": None, "tool_call_id": None}
    row = read({**nulls, "messages": [asked, {**SAID, "tool_calls": []}]})
    assert (row.prompt, row.fields["answer"], row.tools) == ([ASKED], "Nine miles.", None)
    assert fault({"prompt": None}) == "'prompt' is null; write a string or a list of messages"


def test_prompt_wins_over_messages_and_another_prompt_field_is_meant() -> None:
    row = read({"prompt": "Hi", "messages": [ASKED, SAID]})
    assert (row.prompt, row.fields) == ("Hi", {"messages": [ASKED, SAID]})
    assert "'question' is missing; found keys: messages" in fault(
        {"messages": [ASKED]}, RowFormat("question")
    )


def test_turns_before_the_last_one_stay_and_weight_0_is_no_answer() -> None:
    turns = [{"role": "system", "content": "S"}, ASKED, {**SAID, "weight": 0}, ASKED]
    row = read({"messages": [*turns, SAID]})
    assert row.prompt == [turns[0], ASKED, SAID, ASKED]
    assert row.fields["answer"] == "Nine miles."
    assert "answer" not in read({"messages": [ASKED, {**SAID, "weight": 0}]}).fields


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "How far "}, {"type": "text", "text": "is it?"}]
    said = {"role": "assistant", "content": [{"type": "output_text", "text": "Nine."}]}
    row = read({"messages": [{"role": "user", "content": parts}, said]})
    assert row.prompt == [ASKED]
    assert row.fields["answer"] == "Nine."


def test_calls_of_tools_reach_the_template_as_objects() -> None:
    turns = [
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "name": "far", "content": "9"},
        SAID,
    ]
    row = read({"messages": turns, "tools": [{"type": "function", "function": {"name": "far"}}]})
    function = {"name": "far", "arguments": {"to": "Ely"}}
    assert row.prompt == [
        ASKED,
        {"role": "assistant", "content": "", "tool_calls": [{**CALL, "function": function}]},
        turns[2],
    ]
    assert row.fields["answer"] == "Nine miles."
    assert row.tools == [{"type": "function", "function": {"name": "far"}}]
    old = {"role": "assistant", "function_call": {"name": "far", "arguments": "not JSON"}}
    asked = read({"messages": [ASKED, old, {"role": "function", "name": "far", "content": "9"}]})
    assert isinstance(asked.prompt, list)
    assert asked.prompt[1]["tool_calls"] == [
        {"type": "function", "function": {"name": "far", "arguments": "not JSON"}}
    ]


def test_a_last_turn_that_only_calls_is_no_answer_in_words() -> None:
    row = read({"messages": [ASKED, {"role": "assistant", "tool_calls": [CALL]}]})
    assert (row.prompt, "answer" in row.fields) == ([ASKED], False)


@pytest.mark.parametrize("tools", [[{"name": "f"}], json.dumps([{"name": "f"}])])
def test_tools_may_be_json_text(tools: Any) -> None:
    row = read({"prompt": "a", "tools": tools})
    assert row.tools == [{"name": "f"}]
    assert row.fields["tools"] == tools  # a reward function of the user's own sees what he wrote


def test_no_tools_are_none_and_functions_are_an_older_spelling() -> None:
    for value in (None, "", "[]"):
        assert read({"prompt": "a", "tools": value}).tools is None
    assert read({"prompt": "a", "tools": []}).tools is None
    assert read({"prompt": "a", "functions": [{"name": "f"}]}).tools == [
        {"type": "function", "function": {"name": "f"}}
    ]
    assert read({"prompt": "a", "functions": "sine"}).tools is None


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "'image_url'"),
        (
            [{"role": "user", "content": [{"type": "input_audio"}]}],
            "part of the type 'input_audio'",
        ),
        ([{"role": "user", "content": [{"type": ["text"]}]}], "only text parts are supported"),
        ([{"role": "user", "content": [7]}], "content part 7; only text parts"),
        ([{**ASKED, "audio": {"id": "a"}}], "has 'audio'; only text"),
        ([{"role": "user", "content": None}], "has the content null; write a string"),
        ([{"from": "human", "value": "a"}], 'write {"role": ..., "content": ...}'),
        ([ASKED, {"role": "assistant", "tool_calls": "far"}], "has the tool_calls 'far'; write"),
        ([ASKED, {"role": "assistant", "tool_calls": [{"name": "f"}]}], "has the tool_calls"),
        ([SAID], "has no turn before the assistant turn"),
        ([ASKED, SAID, SAID], "ends with two assistant turns"),
        ([{"role": "system", "content": "S"}, SAID], "ends with the role system; end with"),
        ([ASKED, {"role": "system", "content": "S"}], "ends with the role system"),
    ],
)
def test_what_cannot_be_used_is_named(messages: Any, message: str) -> None:
    told = fault({"messages": messages})
    assert told.startswith("'messages' ")
    assert message in told
    assert len(told) < 300


def test_messages_of_a_fault_stay_short() -> None:
    assert len(fault({"prompt": [{"role": "user", "content": {"long": "x" * 10_000}}]})) < 300
    assert len(fault({"prompt": "a", "answer": {"long": "x" * 10_000}})) < 300


def test_tools_that_are_none_are_named() -> None:
    assert fault({"prompt": "a", "tools": "hammer"}).startswith("'tools' is 'hammer'; write a list")
    assert fault({"prompt": "a", "tools": ["hammer"]}).startswith("'tools' is ['hammer']")


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("Rome", ("Rome",)),
        (" ", ()),
        (None, ()),
        (5, ("5",)),
        (5.0, ("5.0",)),
        (-0.25, ("-0.25",)),
        (True, ("true",)),
        (False, ("false",)),
        (float("nan"), ()),
        ([], ()),
        (["Rome", "Roma", "Rome"], ("Rome", "Roma")),
        (["Rome", None, ""], ("Rome",)),
        ([4, 4.5, "four", True], ("4", "4.5", "four", "true")),
        ({"a": 1}, ()),
        (("a", "b"), ("a", "b")),
    ],
)
def test_what_counts_as_an_answer(value: Any, texts: tuple[str, ...]) -> None:
    assert accepted_answers(value) == texts


def test_answers_that_are_no_text_are_counted_with_their_lines(llama: Any, write: Write) -> None:
    answers = ["5", 5, [True, "yes"], ["a", "b"], None]
    rows = [{"prompt": f"q{i}", "answer": answer} for i, answer in enumerate(answers)]
    path = write("t.jsonl", "\n".join(map(json.dumps, rows)))
    config = config_for(path, "reward: {type: supervised}")
    report = encode_data(load_data(config), llama.prompt_tokenizer, config).report["train"]
    assert report["answers_taken_as_text"] == {"rows": 2, "lines": [f"{path}:2", f"{path}:3"]}
    assert report["several_answers"] == {"rows": 2, "lines": [f"{path}:3", f"{path}:4"]}
    assert report["left_out"] == {"no reference answer": [f"{path}:5"]}
    assert report["rows_left_out"] == {"no reference answer": 1}


def test_tools_are_handed_to_the_template_or_it_is_said_that_it_leaves_them_out(
    llama: Any, write: Write
) -> None:
    tools = [{"type": "function", "function": {"name": "far_away"}}]
    path = write("t.jsonl", json.dumps({"prompt": "a", "tools": tools}))
    config = config_for(path)
    encoded = encode_data(load_data(config), llama.prompt_tokenizer, config)
    assert encoded.notes == (
        "the chat template ignores the key 'tools', so the model never sees it (first in "
        f"{path}:1)",
    )
    plain = llama.prompt_tokenizer.tokenizer.chat_template
    llama.prompt_tokenizer.tokenizer.chat_template = (
        "{% if tools %}{{ tools[0]['function']['name'] }} {% endif %}" + plain
    )
    encoded = encode_data(load_data(config), llama.prompt_tokenizer, config)
    assert encoded.notes == ()
    assert llama.prompt_tokenizer.tokenizer.decode(list(encoded.train[0].prompt_ids)).startswith(
        "far_away "
    )


def test_a_role_that_the_template_passes_over_is_named(llama: Any, write: Write) -> None:
    llama.prompt_tokenizer.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    turns = [{"role": "developer", "content": "Be brief."}, ASKED]
    path = write("t.jsonl", json.dumps({"messages": turns}))
    config = config_for(path)
    (note,) = encode_data(load_data(config), llama.prompt_tokenizer, config).notes
    assert "ignores messages with the role 'developer'" in note


def test_a_row_that_the_template_refuses_is_named(llama: Any, write: Write) -> None:
    llama.prompt_tokenizer.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('No system here') }}{% endif %}"
        "{{ messages[-1].content }}"
    )
    with_system = {"prompt": [{"role": "system", "content": "S"}, ASKED]}
    path = write("t.jsonl", f"{json.dumps({'prompt': 'a'})}\n{json.dumps(with_system)}\n")
    with pytest.raises(UserInputError) as caught:
        encode_data(load_data(config_for(path)), llama.prompt_tokenizer, config_for(path))
    (problem,) = caught.value.problems
    assert problem.where == f"{path}:2"
    assert "No system here" in problem.message
    config = config_for(path, data="eval: none, system_prompt: Be brief.")
    with pytest.raises(UserInputError, match="No system here") as caught:
        encode_data(load_data(config), llama.prompt_tokenizer, config)
    assert {p.where for p in caught.value.problems} == {f"{path}:2", "data.system_prompt"}


def test_an_export_is_asked_with_the_tools_of_a_row(llama: Any) -> None:
    tokenizer = llama.prompt_tokenizer.tokenizer
    tokenizer.chat_template = "{{ tools[0].name if tools else 'none' }} {{ messages[0].content }}"
    tools = [{"name": "far_away"}]
    for offered in (tools, None):
        expected = llama.prompt_tokenizer.encode_prompt([ASKED], offered)
        question = {"prompt": [ASKED], "tools": offered}
        assert tuple(read_transformers.render(tokenizer, question, {})) == expected
    called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    asked = read({"messages": [ASKED, called, {"role": "tool", "content": "9"}]}).prompt
    assert isinstance(asked, list)
    assert isinstance(asked[1]["tool_calls"][0]["function"]["arguments"], dict)
    assert json.loads(with_json_arguments(asked[1])["tool_calls"][0]["function"]["arguments"]) == {
        "to": "Ely"
    }
    assert with_json_arguments(ASKED) == ASKED


def test_score_rows_honour_the_prompt_field_and_conversations(write: Write) -> None:
    lines = [
        {"question": "a", "completion": "b", "answer": 5},
        {"prompt": "c", "completion": "d"},
        {"messages": [ASKED, SAID], "completion": [{"role": "assistant", "content": "Nine"}]},
    ]
    path = write("s.jsonl", "\n".join(map(json.dumps, lines)))
    config = parse_config(
        "data: {train: '-', prompt_field: question}\nreward: {type: supervised}", "c"
    )
    rows, guess = load_score_rows(path, config)
    assert guess.note is None
    assert [each.row.prompt for each in rows] == ["a", "c", [ASKED]]
    assert [each.completion for each in rows] == ["b", "d", "Nine"]
    assert [each.row.fields.get("answer") for each in rows] == [5, None, "Nine miles."]
    assert [each.given for each in rows] == lines


def test_null_is_no_held_out_rows(write: Write) -> None:
    path = write("t.jsonl", "\n".join(f'{{"prompt": "{i}"}}' for i in range(60)))
    config = config_for(path, data="eval: null")
    assert config.with_data().eval == "none"
    data = load_data(config)
    assert (len(data.train), len(data.eval), data.eval_source) == (60, 0, None)


KEYS = ["role", "content", "type", "text", "name", "tool_calls", "function", "arguments", "weight"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["user", "assistant", "system", "tool", "text", "image_url", "{}", "[", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
        | st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": inner})
    ),
    max_leaves=12,
)
COLUMNS = ["prompt", "messages", "answer", "tools", "functions", "completion", "kind"]


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(COLUMNS), VALUES))
def test_any_object_is_a_row_or_a_named_fault(value: dict[str, Any]) -> None:
    try:
        row = read(value)
    except RowFault:
        return
    assert fingerprint(row, None) == fingerprint(row, None)
    assert shape(row)
    if isinstance(row.prompt, list):
        assert row.prompt
        assert all(isinstance(each["content"], str) for each in row.prompt)
        assert row.prompt[-1]["role"] in ("user", "tool", "function")

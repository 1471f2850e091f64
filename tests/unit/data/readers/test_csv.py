"""CSV: cells are text, records may span lines, errors name the line where a record begins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data import load_data
from remote_trainer.errors import UserInputError

Write = Callable[[str, str | bytes], Path]


def config_for(train: Path, reward: str = "inverse_loss") -> RunConfig:
    return parse_config(
        f"data: {{train: '{train}', eval: none}}\nreward: {{type: {reward}}}\n"
        "training: {gradient_accumulation_steps: 1}",
        "c",
    )


def rows_of(path: Path) -> list[tuple[Any, dict[str, Any], str]]:
    rows = load_data(config_for(path)).train
    return [(row.prompt, dict(row.fields), row.source) for row in rows]


def test_cells_are_text_and_empty_ones_are_null(write: Write) -> None:
    path = write("t.csv", 'prompt,answer,n\n"a, b",5,\n"say ""hi""",05.10," [1] "\n')
    assert rows_of(path) == [
        ("a, b", {"answer": "5", "n": None}, f"{path}:2"),
        ('say "hi"', {"answer": "05.10", "n": " [1] "}, f"{path}:3"),
    ]


def test_a_record_may_span_lines_and_has_the_number_of_its_first_one(write: Write) -> None:
    text = '\ufeffprompt,answer\r\n\r\n"one\r\ntwo\n",x\r\n\r\nlast,y'
    path = write("t.CSV", text)
    rows = load_data(config_for(path)).train
    for _ in range(2):  # in any order, again and again
        assert (rows[1].prompt, rows[1].source) == ("last", f"{path}:7")
        assert (rows[0].prompt, rows[0].source) == ("one\r\ntwo\n", f"{path}:3")


def test_an_unnamed_column_is_left_out(write: Write) -> None:
    path = write("t.csv", ", prompt\n0,a\n1,b\n")  # the index that pandas writes
    assert [fields for _, fields, _ in rows_of(path)] == [{}, {}]


BAD = [
    ("prompt,answer\na,b,c\n", ":2: 3 cells, but the header has 2 columns; put a cell"),
    ("prompt,answer\na,b\nc\n", ":3: 1 cell, but the header has 2 columns"),
    ('prompt,answer\na,b\n"c,d\ne,f\n', ":3: not valid CSV (unexpected end of data)"),
    ('prompt,answer\n"a"b,c\n', ":2: not valid CSV (',' expected after '\"')"),
    ("prompt,answer\na\rb,c\n", ":2: not valid CSV (new-line character seen"),
    (b"prompt,answer\n\xff,c\n", ":2: not UTF-8 at byte 1; save the file as UTF-8"),
    (b"\xff\xfep\x00", ":1: not UTF-8 at byte 1; save the file as UTF-8"),
    ("prompt,answer\n,c\n", ":2: 'prompt' is null; write a string"),
    ("prompt,prompt\na,b\n", ":1: two columns have the name 'prompt'; rename one"),
    ("prompt;answer\na;b\n", ":1: the only column is 'prompt;answer'; separate cells with comm"),
    (",,\na,b,c\n", ":1: the header has no column names; write them"),
    ("messages\n\"[{'role': 1}]\"\n", ":2: 'messages' is JSON in a text; write a list of mess"),
    ("prompt,completion\na,b\n", ":2: 'completion' is a reserved key; rename it"),
    ("", ": the file has no rows; write a header line with the column names"),
    ("prompt,answer\n\n", ": the file has no rows; write a header line with the column names"),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_errors_name_line_and_fix(write: Write, content: str | bytes, message: str) -> None:
    path = write("t.csv", content)
    with pytest.raises(UserInputError) as caught:
        load_data(config_for(path))
    assert f"{path}{message}" in str(caught.value)


def test_all_bad_records_are_listed_and_good_ones_after_them_are_read(write: Write) -> None:
    path = write("t.csv", 'prompt,answer\n"a"b,c\nd,e\nf\n,g\n')
    with pytest.raises(UserInputError, match="not valid CSV") as caught:
        load_data(config_for(path))
    assert [problem.where for problem in caught.value.problems] == [
        f"{path}:2",
        f"{path}:4",
        f"{path}:5",
    ]


def test_rows_without_an_answer_are_left_out(write: Write) -> None:
    path = write("t.csv", "prompt,answer\na,5\nb,\n")
    data = load_data(config_for(path, "supervised"))
    assert [row.fields["answer"] for row in data.train] == ["5"]
    assert data.train_source.left_out.places == {"no reference answer": [f"{path}:3"]}
    assert data.train_source.noted.counts == {}  # its digits are text already


def test_a_record_that_changed_is_named(write: Write) -> None:
    path = write("t.csv", "prompt\na\nb\n")
    data = load_data(config_for(path))
    with path.open("r+b") as file:
        file.write(b"prompt\nX")
    with pytest.raises(UserInputError, match=r"t.csv:2: this line changed"):
        data.train[0]
    assert data.train[1].prompt == "b"


def test_a_long_cell_is_read(write: Write) -> None:
    path = write("t.csv", f"prompt,text\na,{'x' * 1_000_000}\n")
    assert len(rows_of(path)[0][1]["text"]) == 1_000_000

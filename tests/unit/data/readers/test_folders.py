"""Folders of shards, and that all formats give the same rows."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data import load_data
from remote_trainer.errors import UserInputError

Rows = list[dict[str, Any]]


def config_for(train: Path, evaluate: str = "none") -> RunConfig:
    return parse_config(
        f"data: {{train: '{train}', eval: '{evaluate}'}}\n"
        "training: {gradient_accumulation_steps: 1}",
        "c",
    )


def as_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_ALL)
        table.writeheader()
        table.writerows(rows)


def as_parquet(path: Path, rows: Rows) -> None:
    schema = pa.schema([(name, pa.string()) for name in rows[0]])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "jsonl": as_jsonl,
    "csv": as_csv,
    "parquet": as_parquet,
}
PLACES = {"jsonl": ":{}", "csv": ":{}", "parquet": " row {}"}


@pytest.mark.parametrize("kind", WRITERS)
def test_shards_follow_each_other_by_name(tmp_path: Path, kind: str) -> None:
    rows = [{"prompt": f"p {i}", "answer": str(i)} for i in range(9)]
    for name, part in (("b", rows[4:7]), ("a", rows[:4]), ("c", rows[7:])):
        WRITERS[kind](tmp_path / f"{name}.{kind}", part)
    for other in ("README.md", f".hidden.{kind}", f"_metadata.{kind}"):
        (tmp_path / other).write_text("no rows")
    told: list[tuple[int, int]] = []
    data = load_data(config_for(tmp_path), lambda done, size: told.append((done, size)))
    assert [row.fields["answer"] for row in data.train] == [str(i) for i in range(9)]
    assert [data.train[i].prompt for i in (8, 0, 5)] == ["p 8", "p 0", "p 5"]
    first = 2 if kind == "csv" else 1  # a CSV file begins with its header
    assert [data.train[i].source for i in (0, 5, 8)] == [
        f"{tmp_path}/a.{kind}{PLACES[kind].format(first)}",
        f"{tmp_path}/b.{kind}{PLACES[kind].format(first + 1)}",
        f"{tmp_path}/c.{kind}{PLACES[kind].format(first + 1)}",
    ]
    assert data.train_source.file == str(tmp_path)
    assert told[-1][0] == told[-1][1]
    assert sorted(told) == told
    WRITERS[kind](tmp_path / f"c.{kind}", rows[:2])
    assert load_data(config_for(tmp_path)).sha256 != data.sha256


def test_bad_rows_of_all_shards_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,n\nx,1\n,2\n")
    (tmp_path / "b.csv").write_text("prompt\ny\nz,3\n")
    with pytest.raises(UserInputError, match="'prompt' is null") as caught:
        load_data(config_for(tmp_path))
    assert [problem.where for problem in caught.value.problems] == [
        f"{tmp_path}/a.csv:3",
        f"{tmp_path}/b.csv:3",
    ]
    (tmp_path / "a.csv").write_text("prompt;n\nx;1\n")
    (tmp_path / "b.csv").write_text("n,n\n1,2\n")
    with pytest.raises(UserInputError, match="separate cells with commas") as caught:
        load_data(config_for(tmp_path))
    assert [problem.where for problem in caught.value.problems] == [
        f"{tmp_path}/a.csv:1",
        f"{tmp_path}/b.csv:1",
    ]


def test_folders_without_files_of_one_kind(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"folder holds no .jsonl, .csv or .parquet file; add"):
        load_data(config_for(tmp_path))
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(UserInputError, match="no rows; write one JSON object per line in its file"):
        load_data(config_for(tmp_path))
    (tmp_path / "b.csv").write_text("prompt\na\n")
    with pytest.raises(UserInputError, match=r"holds .csv and .jsonl files; keep one kind"):
        load_data(config_for(tmp_path))


def test_train_and_eval_may_have_different_formats(tmp_path: Path) -> None:
    as_csv(tmp_path / "t.csv", [{"prompt": "a"}, {"prompt": "b"}])
    as_parquet(tmp_path / "e.parquet", [{"prompt": "b"}])
    data = load_data(config_for(tmp_path / "t.csv", str(tmp_path / "e.parquet")))
    assert data.also_in_train.places == {"rows": [f"{tmp_path}/e.parquet row 1"]}


# No surrogates, which UTF-8 has not; a CSV file cannot tell an empty text from a null.
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
PROMPTS = TEXTS.filter(lambda text: bool(text.strip()))
TABLES = st.lists(
    st.fixed_dictionaries({"prompt": PROMPTS, "answer": st.none() | TEXTS, "note": TEXTS}),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(TABLES)
def test_all_formats_give_the_same_rows(tmp_path_factory: Any, rows: Rows) -> None:
    folder = tmp_path_factory.mktemp("rows")
    loaded = []
    for kind, write in WRITERS.items():
        write(folder / f"t.{kind}", rows)
        data = load_data(config_for(folder / f"t.{kind}"))
        found = [(row.prompt, dict(row.fields)) for row in data.train]
        loaded.append((found, list(data.train.fingerprints()), data.train_source.noted))
    assert loaded[0][0] == [
        (row["prompt"], {key: row[key] for key in ("answer", "note")}) for row in rows
    ]
    assert loaded[0] == loaded[1] == loaded[2]

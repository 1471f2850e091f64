"""Parquet: nested values as in JSONL, errors with file and row."""

import datetime
import decimal
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data import encode_data, load_data
from remote_trainer.data.readers import table
from remote_trainer.errors import UserInputError
from remote_trainer.records import Row

ASKED = {"role": "user", "content": "How far?"}
SAID = {"role": "assistant", "content": "Nine miles."}


def written(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def config_for(train: Path, reward: str = "inverse_loss", evaluate: str = "none") -> RunConfig:
    return parse_config(
        f"data: {{train: '{train}', eval: '{evaluate}'}}\nreward: {{type: {reward}}}\n"
        "training: {gradient_accumulation_steps: 1, max_prompt_length: 30}",
        "c",
    )


def rows_of(path: Path) -> list[Row]:
    return list(load_data(config_for(path)).train)


def test_conversations_and_lists_are_those_of_json(tmp_path: Path) -> None:
    call = {"name": "far", "arguments": '{"unit": "mile"}'}
    turns = [ASKED, {"role": "assistant", "content": "", "function_call": call}, ASKED, SAID]
    (row,) = rows_of(written(tmp_path / "t.parquet", [{"messages": turns, "tags": ["x", None]}]))
    called = {"type": "function", "function": {"name": "far", "arguments": {"unit": "mile"}}}
    calling = {"role": "assistant", "content": "", "tool_calls": [called]}
    assert row.prompt == [ASKED, calling, ASKED]
    assert row.fields == {"tags": ["x", None], "answer": "Nine miles."}
    assert row.source == f"{tmp_path}/t.parquet row 1"


def test_answers_are_counted_as_in_jsonl(tmp_path: Path) -> None:
    rows = [{"prompt": str(i), "answer": answer} for i, answer in enumerate([5, None, 7])]
    path = written(tmp_path / "t.parquet", rows)
    data = load_data(config_for(path, "supervised"))
    assert [row.fields["answer"] for row in data.train] == [5, 7]
    assert data.train_source.left_out.places == {"no reference answer": [f"{path} row 2"]}
    assert data.train_source.noted.places["answers_taken_as_text"] == [
        f"{path} row 1",
        f"{path} row 3",
    ]
    assert data.train_source.read == 3


def test_values_that_json_lacks_become_text_or_null(tmp_path: Path) -> None:
    row = {
        "prompt": "a",
        "day": datetime.date(2025, 2, 3),
        "price": decimal.Decimal("5.10"),
        "raw": b"caf\xc3\xa9",
        "nan": float("nan"),
        "inner": {"kept": 1, "gone": None, "also": float("nan")},
    }
    other = {"prompt": "b", "inner": {"gone": 2}}
    first, _ = rows_of(written(tmp_path / "t.parquet", [row, other]))
    assert first.fields == {
        "day": "2025-02-03",
        "price": "5.10",
        "raw": "café",
        "nan": None,
        "inner": {"kept": 1, "also": None},
    }


def test_errors_name_the_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "raw": b"x", "n": 1.0},
        {"prompt": None, "raw": b"x", "n": 1.0},
        {"prompt": "c", "raw": b"\xff", "n": 1.0},
        {"prompt": "d", "raw": b"x", "n": float("inf")},
    ]
    path = written(tmp_path / "shard-0001.parquet", rows)
    with pytest.raises(UserInputError, match=r"shard-0001.parquet row 2: ") as caught:
        load_data(config_for(path))
    assert [str(problem) for problem in caught.value.problems] == [
        f"{path} row 2: 'prompt' is null; write a string or a list of messages",
        f"{path} row 3: 'raw' contains bytes that are not UTF-8 text; remove this column",
        f"{path} row 4: 'n' contains inf; write null or a finite number",
    ]


def test_long_prompts_are_named_by_file_and_row(llama: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "word " * (60 if i > 3 else 3)} for i in range(50)]
    path = written(tmp_path / "t.parquet", rows)
    config = config_for(path)
    report = encode_data(load_data(config), llama.prompt_tokenizer, config).report["train"]
    assert report["rows_left_out"] == {"prompt too long": 46}
    assert report["left_out"]["prompt too long"][0] == f"{path} row 5"
    data = config.with_data().model_copy(update={"overlong_prompts": "refuse"})
    config = config.model_copy(update={"data": data})
    with pytest.raises(UserInputError, match=r"t.parquet row 5: the prompt has") as caught:
        encode_data(load_data(config), llama.prompt_tokenizer, config)
    assert str(caught.value.problems[-1]) == f"{path}: and 26 more lines with problems"


def test_empty_broken_and_ambiguous_files(tmp_path: Path) -> None:
    empty = written(tmp_path / "empty.parquet", [], pa.schema([("prompt", pa.string())]))
    with pytest.raises(UserInputError, match="the file has no rows; write at least one row"):
        load_data(config_for(empty))
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b'{"prompt": "a"}\n')
    with pytest.raises(UserInputError, match=r"broken.parquet: not a readable parquet file"):
        load_data(config_for(broken))
    twice = tmp_path / "twice.parquet"
    columns = [pa.array(["a"]), pa.array(["b"])]
    pq.write_table(pa.Table.from_arrays(columns, ["prompt", "prompt"]), twice)
    with pytest.raises(UserInputError, match=r"twice.parquet: two columns have the name 'prompt'"):
        load_data(config_for(twice))
    with pytest.raises(UserInputError, match=r"no.parquet: no such file"):
        load_data(config_for(tmp_path / "no.parquet"))


def test_the_extra_is_named_where_pyarrow_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "t.parquet", [{"prompt": "a"}])
    monkeypatch.setattr(table, "find_spec", lambda module: None)
    with pytest.raises(UserInputError, match=r"needs pyarrow, .*install 'remote-trainer\[train\]'"):
        load_data(config_for(path))


def test_rows_in_many_batches_keep_their_order_and_progress_ends_with_the_size(
    tmp_path: Path,
) -> None:
    rows = [{"prompt": str(i), "n": i} for i in range(2500)]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=700)
    told: list[tuple[int, int]] = []
    data = load_data(config_for(path), lambda done, size: told.append((done, size)))
    assert [row.fields["n"] for row in data.train] == list(range(2500))
    assert len(told) == 3
    assert told[-1] == (told[0][1], told[0][1])


def test_held_out_rows_and_overlap(tmp_path: Path) -> None:
    train = written(tmp_path / "t.parquet", [{"prompt": f"p {i}"} for i in range(60)])
    held = written(tmp_path / "e.parquet", [{"prompt": "p 7"}, {"prompt": "new"}])
    data = load_data(config_for(train, evaluate=str(held)))
    assert data.also_in_train.places == {"rows": [f"{held} row 1"]}
    split = load_data(config_for(train, evaluate="auto"))
    assert (len(split.train), len(split.eval)) == (40, 20)
    written(held, [{"prompt": "p 8"}])
    assert load_data(config_for(train, evaluate=str(held))).sha256 != data.sha256


@pytest.mark.parametrize(("rows", "length"), [(10_000, 100_000), (20_000_000, 8)])
def test_a_small_file_cannot_take_all_memory(tmp_path: Path, rows: int, length: int) -> None:
    """Equal values take a few bytes in the file, and all of their bytes in memory."""
    path, part = tmp_path / "bomb.parquet", min(rows, 1_000_000)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * part, pa.int32()), ["a" * length])
    with pq.ParquetWriter(path, pa.schema({"prompt": column.type})) as writer:
        for _ in range(rows // part):
            writer.write_table(pa.table({"prompt": column}))
    assert path.stat().st_size < 200_000
    with pytest.raises(UserInputError, match=r"bytes unpack to more than 134217728; if that is"):
        load_data(config_for(path))


def test_a_pipe_is_no_parquet_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(UserInputError, match=r"a\.parquet: it is not a file"):
        load_data(config_for(tmp_path / "a.parquet"))


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    text = pa.array([b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"prompt": text}), tmp_path / "a.parquet")
    with pytest.raises(UserInputError, match=r"a\.parquet: not a readable parquet .*UTF8"):
        load_data(config_for(tmp_path / "a.parquet"))


def test_a_time_that_python_cannot_hold_is_named(tmp_path: Path) -> None:
    times = pa.array([10**15], pa.timestamp("s"))
    pq.write_table(pa.table({"prompt": ["a"], "when": times}), tmp_path / "a.parquet")
    with pytest.raises(UserInputError, match=r"a\.parquet: rows 1 to 1 cannot be read"):
        load_data(config_for(tmp_path / "a.parquet"))

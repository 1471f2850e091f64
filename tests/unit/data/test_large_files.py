"""Large files: read line by line, kept as places, rendered again when asked for."""

import json
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data import encode as encode_module
from remote_trainer.data import encode_data, load_data
from remote_trainer.data.readers import open_reader, text_file
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.progress import ProgressCallbacks, late

Write = Callable[[str, str | bytes], Path]


def config_for(train: Path, data: str = "eval: none", training: str = "") -> RunConfig:
    return parse_config(
        f"data: {{train: '{train}', {data}}}\n"
        f"training: {{gradient_accumulation_steps: 1, max_prompt_length: 30{training}}}",
        "c",
    )


def numbered(count: int) -> str:
    return "\n".join(json.dumps({"prompt": f"number {i}", "n": i}) for i in range(count))


def test_rows_are_read_again_from_their_places(write: Write) -> None:
    text = "\ufeff\n" + numbered(50).replace("\n", "\r\n\n") + "\n"
    data = load_data(config_for(write("t.jsonl", text)))
    assert [row.fields["n"] for row in data.train] == list(range(50))
    assert data.train[-1].fields["n"] == 49
    assert [row.fields["n"] for row in data.train[10:13]] == [10, 11, 12]
    assert [row.source.rpartition(":")[2] for row in data.train[:3]] == ["2", "4", "6"]


def test_a_row_takes_less_than_a_hundred_bytes_of_memory(write: Write) -> None:
    count, text = 20_000, "x" * 500
    path = write("t.jsonl", "\n".join(f'{{"prompt": "{i} {text}"}}' for i in range(count)))
    tracemalloc.start()
    data = load_data(config_for(path))
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data.train) == count
    assert kept < 100 * count
    assert most < 300 * count  # the file alone has 510 bytes a row


def test_a_line_that_changed_is_named_and_others_stay_usable(write: Write) -> None:
    path = write("t.jsonl", numbered(3))
    data = load_data(config_for(path))
    with path.open("r+b") as file:
        file.write(b'{"prompt": "another')
    with pytest.raises(UserInputError, match=r"t.jsonl:1: this line changed"):
        data.train[0]
    with path.open("ab") as file:
        file.write(b'\n{"prompt": "one more"}')
    assert data.train[1].fields["n"] == 1


def test_a_pipe_can_be_a_data_file(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_text(numbered(5)))
    writer.start()
    data = load_data(config_for(path))
    writer.join()
    assert [row.fields["n"] for row in data.train] == list(range(5))


def test_a_long_line_is_a_row(write: Write) -> None:
    path = write("t.jsonl", json.dumps({"prompt": "a", "text": "x" * 5_000_000}))
    (row,) = load_data(config_for(path)).train
    assert len(row.fields["text"]) == 5_000_000


def test_a_path_that_cannot_be_opened_is_a_problem(tmp_path: Path) -> None:
    for path, message in ((tmp_path / ("a" * 300), "too long"), (Path("a\0b"), "null")):
        config = config_for(tmp_path)
        config = config.model_copy(
            update={"data": config.with_data().model_copy(update={"train": str(path)})}
        )
        with pytest.raises(UserInputError, match=f"{message}.*write the path of a JSONL, CSV"):
            load_data(config)


def test_only_some_rows_of_a_large_file_are_measured_and_it_is_said(
    llama: Any, write: Write
) -> None:
    rows = [{"prompt": "word " * (60 if i % 4 == 0 else 3)} for i in range(400)]
    path = write("t.jsonl", "\n".join(map(json.dumps, rows)))
    config = config_for(path)
    report = encode_data(load_data(config), llama.prompt_tokenizer, config, most=40).report["train"]
    exact = encode_data(load_data(config), llama.prompt_tokenizer, config).report["train"]
    left_out = report["rows_left_out"]["prompt too long"]
    long = len(report["left_out"]["prompt too long"])
    seen = report["prompt_tokens"]["estimated_from_rows"] + long
    assert 40 <= seen <= 41  # the first row stands for its shape
    assert left_out == round(400 * long / seen)
    assert "estimated_from_rows" not in exact["prompt_tokens"]
    assert exact["rows_left_out"] == {"prompt too long": 100}
    assert report["rows_kept"] + report["rows_left_out"]["prompt too long"] == 400
    assert report["prompt_tokens"]["max"] == exact["prompt_tokens"]["max"]
    refusing = config_for(path, "eval: none, overlong_prompts: refuse")
    with pytest.raises(UserInputError) as caught:
        encode_data(load_data(refusing), llama.prompt_tokenizer, refusing, most=40)
    assert caught.value.problems[-1].message == "and 80 more lines with problems"


def test_a_rare_shape_is_measured_whatever_the_sample(llama: Any, write: Write) -> None:
    llama.prompt_tokenizer.tokenizer.chat_template = (
        "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}"
        "{{ messages[-1].content }}"
    )
    lines = [json.dumps({"prompt": f"q {i}"}) for i in range(300)]
    turns = [{"role": role, "content": "c"} for role in ("user", "assistant", "user")]
    lines[157] = json.dumps({"prompt": turns})
    path = write("t.jsonl", "\n".join(lines))
    with pytest.raises(UserInputError, match=r"t.jsonl:158: .*too many"):
        encode_data(load_data(config_for(path)), llama.prompt_tokenizer, config_for(path), most=10)


def test_encoded_rows_are_those_of_the_codec_in_batches_of_any_size(
    llama: Any, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["a " * (i % 9 * 3 + 1) for i in range(30)]
    lines = [json.dumps({"prompt": prompt, "n": i}) for i, prompt in enumerate(prompts)]
    config = config_for(write("t.jsonl", "\n".join(lines)))
    whole = list(encode_data(load_data(config), llama.prompt_tokenizer, config).train)
    monkeypatch.setattr(encode_module, "BATCH", 7)
    parts = encode_data(load_data(config), llama.prompt_tokenizer, config).train
    assert list(parts) == whole
    assert parts[3:5][1] == whole[4]
    assert [row.row.fields["n"] for row in whole] == [
        i
        for i, prompt in enumerate(prompts)
        if len(llama.prompt_tokenizer.encode(prompt)) <= 30 - 3
    ]
    for row in whole:
        assert row.prompt_ids == llama.prompt_tokenizer.encode_prompt(row.row.prompt)


def test_progress_is_told_of_long_counts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("remote_trainer.progress.time.monotonic", lambda: now[0])
    told: list[tuple[int, int]] = []
    stages: list[str] = []
    watch = ProgressCallbacks(
        stages.append, progress=lambda done, total: told.append((done, total))
    )
    tell = late(watch, "counting")
    tell(1, 10)
    now[0] = 2.1
    tell(2, 10)
    tell(3, 10)
    assert told == [(2, 10), (3, 10)]
    assert stages == ["counting"]


def test_bytes_read_are_told_to_the_end(write: Write) -> None:
    path = write("t.jsonl", numbered(10_500))
    told: list[tuple[int, int]] = []
    load_data(config_for(path), lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert [total for _, total in told] == [size, size]
    assert 0 < told[0][0] < size
    assert told[-1] == (size, size)


def test_a_file_without_line_ends_is_not_read_as_one_line(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_file, "LONGEST_LINE", 1000)
    path = write("t.jsonl", json.dumps({"prompt": "a" * 900}) + "\n" + " " * 1001)
    problems: list[Problem] = []
    reader = open_reader(str(path), problems)
    assert reader is not None
    with pytest.raises(UserInputError, match=r"t\.jsonl: has a line with more than 1000 bytes"):
        list(reader.records())


def test_a_device_is_no_data() -> None:
    problems: list[Problem] = []
    assert open_reader("/dev/zero", problems) is None
    assert str(problems[0]).startswith("/dev/zero: is a device; write the path of a JSONL, CSV")

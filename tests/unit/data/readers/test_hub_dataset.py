"""Datasets of the hub: which names mean one, and what goes wrong without network."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data import load_data
from remote_trainer.data.readers import table
from remote_trainer.data.readers.hub import dataset_id, source_name
from remote_trainer.errors import UserInputError

LOAD = datasets.load_dataset
ASKED = {"role": "user", "content": "How far?"}
SAID = {"role": "assistant", "content": "Nine miles."}


def config_for(train: str, evaluate: str = "none") -> RunConfig:
    return parse_config(
        f"data: {{train: '{train}', eval: '{evaluate}'}}\n"
        "training: {gradient_accumulation_steps: 1}",
        "c",
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("owner/name", ("owner/name", None, "train")),
        ("owner/name:test", ("owner/name", None, "test")),
        ("openai/gsm8k:main:test", ("openai/gsm8k", "main", "test")),
        ("a/b:train[:10%]", ("a/b", None, "train[:10%]")),
        ("a/b:c-1.0:train[5:10]", ("a/b", "c-1.0", "train[5:10]")),
        ("a-b/c.2_d", ("a-b/c.2_d", None, "train")),
    ],
)
def test_a_dataset_and_its_split(text: str, found: tuple[str, str | None, str]) -> None:
    asked = dataset_id(text)
    assert asked is not None
    assert (asked.path, asked.config, asked.split) == found
    assert source_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("rows", "rows.jsonl", "data/rows.jsonl", "data/rows.json", "./a/b", "../b", "/a/b"),
        *("a/b/c", "a/b/", "a/b:", "a/b:c:", "-"),
    ],
)
def test_anything_else_is_a_path(text: str) -> None:
    assert dataset_id(text) is None


def test_what_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert dataset_id("data/rows") is not None
    (tmp_path / "data/rows").mkdir(parents=True)
    assert dataset_id("data/rows") is None
    (tmp_path / "data/rows/a.jsonl").write_text('{"prompt": "a"}\n')
    assert [row.source for row in load_data(config_for("data/rows")).train] == [
        "data/rows/a.jsonl:1"
    ]
    assert source_name("data/rows") == "rows"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """`load_dataset` without a network; the list has its arguments."""
    calls: list[tuple[Any, ...]] = []

    def load_dataset(path: str, name: str | None = None, *, split: str) -> datasets.Dataset:
        calls.append((path, name, split))
        rows = [{"prompt": f"{split} {i}", "answer": i, "day": None} for i in range(2500)]
        return datasets.Dataset.from_list(rows).select(range(2499, -1, -1))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_rows_and_places_of_a_dataset(hub: list[tuple[Any, ...]]) -> None:
    data = load_data(config_for("owner/name", "owner/name:main:test"))
    assert hub == [("owner/name", None, "train"), ("owner/name", "main", "test")]
    assert [row.fields["answer"] for row in data.train] == list(range(2499, -1, -1))
    row = data.eval[1000]
    assert (row.prompt, row.source) == ("test 1499", "owner/name:main:test row 1001")
    assert row.fields == {"answer": 1499, "day": None}
    assert data.train_source.sha256 == load_data(config_for("other/name")).train_source.sha256
    assert data.eval_source is not None
    assert data.train_source.sha256 != data.eval_source.sha256


def test_a_folder_in_the_form_of_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library, on a local folder in place of a repository of the hub."""
    (tmp_path / "data").mkdir()
    lines = [{"messages": [ASKED, SAID]}, {"messages": [{**ASKED, "name": "x"}, SAID]}]
    for split in ("train", "test"):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "data" / f"{split}.jsonl").write_text(text)
        lines = lines[:1]

    def load_dataset(path: str, name: str | None, *, split: str) -> Any:
        assert path == "owner/name"
        return LOAD(str(tmp_path / "data"), name, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_data(config_for("owner/name", "owner/name:test"))
    assert [row.prompt for row in data.train] == [[ASKED], [{**ASKED, "name": "x"}]]
    assert [row.fields for row in data.eval] == [{"answer": "Nine miles."}]
    with pytest.raises(UserInputError, match=r"owner/name:dev: .*dev") as caught:
        load_data(config_for("owner/name:dev"))
    assert len(caught.value.problems) == 1


def test_media_are_refused_by_their_column(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> list[Any]:
        return Media()

    class Media(list[Any]):
        column_names, data = ["prompt", "image"], datasets.Dataset.from_list([{"a": 1}]).data

        def __len__(self) -> int:
            return 1

        def __getitem__(self, _: Any) -> Any:
            return {"prompt": ["q"], "image": [object()]}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserInputError, match="name row 1: 'image' contains a object; remove this"):
        load_data(config_for("owner/name"))


def test_without_network_check_says_so_and_ends_with_2(tmp_path: Path) -> None:
    """The real library, which honours HF_HUB_OFFLINE."""
    (tmp_path / "c.yaml").write_text("data: {train: owner/no-such-dataset}\n")
    done = subprocess.run(
        [sys.executable, "-m", "remote_trainer.cli", "check", "c.yaml"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    told = " ".join(done.stderr.split())
    assert done.returncode == 2, told
    assert "owner/no-such-dataset: no such file or folder, and no such dataset in the cache" in told
    assert "HF_HUB_OFFLINE is set: unset it to download the dataset" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no route\nmore"), "hub cannot be reached (ConnectionError: no route);"),
        (FileNotFoundError("x"), "no such dataset on the Hugging Face hub (FileNotFoundError: x);"),
        (
            ValueError("Config name is missing.\nPick one of ['main']"),
            "cannot be loaded (ValueError: Config name is missing. Pick one of ['main']); write "
            "owner/name, owner/name:split or owner/name:config:split",
        ),
    ],
)
def test_each_failure_has_its_advice(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def load_dataset(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UserInputError, match=r"^owner/name: ") as caught:
        load_data(config_for("owner/name"))
    assert message in str(caught.value)


def test_the_extra_is_named_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda module: None)
    with pytest.raises(UserInputError, match=r"needs datasets, .* 'remote-trainer\[train\]'"):
        load_data(config_for("owner/name"))

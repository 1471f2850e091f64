"""The real libraries: what they wrote is read back, without them where that is possible.

`make test-trackers` installs them beside the environment; without them these tests are skipped.
"""

import json
import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tracked_run import CONFIG, write_alarms, write_step

from remote_trainer.run_dir import RunDir
from remote_trainer.trackers.process import TrackerProcess

MARK = "hf_secret"
"""The token in the config of the run."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """No variable of the user's, and a proxy that refuses: nothing reaches a network."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "TRACKIO_", "HF_HUB_OFFLINE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", MARK)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return RunDir(tmp_path / "mine")


def track(name: str, run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    """Two updates with an alarm; a second process repeats the second one and adds a third."""
    with TrackerProcess(name, run, CONFIG, every=2):
        write_step(run, 1)
        write_step(run, 2)
        write_alarms(run, "stop")
    with TrackerProcess(name, run, CONFIG, every=2):
        run.metrics.unlink()
        for step in (1, 2, 3):
            write_step(run, step)
    output = (run.tracking / f"{name}.log").read_text()
    assert caplog.messages == [], output
    assert MARK not in output
    files = [path for path in run.root.parent.rglob("*") if path.is_file()]
    assert [path for path in files if MARK.encode() in path.read_bytes()] == []


def test_trackio(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    track("trackio", run, caplog)
    (database,) = run.root.parent.glob("trackio/remote-trainer*.db")
    with closing(sqlite3.connect(database)) as found:
        rows = found.execute("select run_name, step, metrics from metrics order by id").fetchall()
        alerts = found.execute("select title, text, level from alerts").fetchall()
        (config,) = (json.loads(text) for (text,) in found.execute("select config from configs"))
    assert [step for _, step, _ in rows] == [1, 2, 3]
    assert len({name for name, _, _ in rows}) == 1
    assert rows[0][0].startswith("mine-")
    first, second, _ = (json.loads(metrics) for _, _, metrics in rows)
    assert (first["reward"], second["reward"], second["probe/accuracy"]) == (0.1, 0.2, 0.25)
    assert second["completions"]["_value"][3]["completion"] == "answer 2"
    assert alerts == [("kl", "update 2: stop level 3, value 3.5", "error")]
    assert config["training"] == {"seed": 1, "trl": {}}


def test_tensorboard(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    track("tensorboard", run, caplog)
    read = EventAccumulator(str(run.tracking / "tensorboard"))
    read.Reload()
    found = [(each.step, float(make_ndarray(each.tensor_proto))) for each in read.Tensors("reward")]
    assert [step for step, _ in found] == [1, 2, 3]
    assert [value for _, value in found] == pytest.approx([0.1, 0.2, 0.3])
    assert [each.step for each in read.Tensors("completions")] == [1, 2]
    cells = read.Tensors("completions")[1].tensor_proto
    assert [each.size for each in cells.tensor_shape.dim] == [5, 5]  # a head and 4 rows
    assert cells.string_val[0] == b"step"
    assert cells.string_val[-3:] == [b"answer 2", b'["4", "four"]', b"0.5"]
    (alarm,) = read.Tensors("guard/kl")
    assert alarm.tensor_proto.string_val[0] == b"stop level 3, value 3.5"


def test_wandb(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    track("wandb", run, caplog)
    parts = sorted(run.tracking.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(parts) == 2
    records = [record for part in parts for record in records_of(part)]
    runs = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert len({each.run_id for each in runs}) == 1
    assert {each.project for each in runs} == {"remote-trainer"}
    history = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in each.item}
        for each in (record.history for record in records if record.HasField("history"))
    ]
    assert [(each["_step"], each["reward"]) for each in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert history[1]["completions/nrows"] == 4
    alerts = [record.alert for record in records if record.HasField("alert")]
    assert [(each.title, each.text, each.level) for each in alerts] == [
        ("kl", "update 2: stop level 3, value 3.5", "ERROR")
    ]
    named = history[1]["completions/path"]
    (table,) = run.tracking.glob(f"wandb/offline-run-*/files/{named}")
    assert json.loads(table.read_text())["data"][3][2] == "answer 2"


def records_of(file: Path) -> Iterator[Any]:
    """wandb's transaction log: a head of 7 bytes, then records as in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = file.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the only or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""

"""The animated terminal of the README, made from a run folder."""

import importlib.util
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from remote_trainer.run_dir import RunDir, append_jsonl, write_json

SCRIPT = Path(__file__).parents[2] / "scripts/make_pictures.py"


@pytest.fixture
def pictures() -> Any:
    spec = importlib.util.spec_from_file_location("make_pictures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_terminal_shows_the_run(
    pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunDir(tmp_path / "run")
    for step in range(1, 21):
        line = {"step": step, "reward": step / 8, "kl": 0.25, "clipped_share": 0.5}
        append_jsonl(folder.metrics, {**line, "completion_tokens_mean": 7.0, "seconds_step": 2.0})
    verdict = {"text": "Better: by 20 points."}
    write_json(folder.eval, {"before": None, "after": {"reward": 0.5}, "verdict": verdict})
    monkeypatch.setattr(pictures, "TERMINAL", tmp_path / "terminal.svg")
    pictures.picture_of_terminal(folder)
    svg = (tmp_path / "terminal.svg").read_text()
    tree = ElementTree.fromstring(svg)
    frames = [each for each in tree if each.get("id", "").startswith("g")]
    assert len(frames) == pictures.FRAMES + 1
    texts = ["".join(each.itertext()).replace("\u00a0", " ") for each in frames]
    assert "$ remote-trainer train configs/supervised.yaml" in texts[0]
    assert "1/20" in texts[0]
    assert "20/20" in texts[-1]
    assert "Better: by 20 points." in texts[-1]
    assert "Better" not in texts[-2]
    assert len({each.get("viewBox") for frame in frames for each in frame}) == 1
    assert svg.count("http") == svg.count("http://www.w3.org/2000/svg")

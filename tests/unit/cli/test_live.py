"""What `train` shows while it runs: the live view, plain lines, JSON lines or nothing."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from remote_trainer.cli import commands, live, progress
from remote_trainer.cli.app import app
from remote_trainer.config import RunConfig
from remote_trainer.errors import EngineError
from remote_trainer.guard import ALARMS, Finding
from remote_trainer.metrics import METRICS
from remote_trainer.pipeline import train
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.run_dir import RunDir, append_jsonl, write_json

VERDICT = "Better: on 40 held-out rows."
HOSTILE = "Paris\x1b[2J\x1b]0;title\x07 \u202e is\nthe capital"


def line(step: int, reward: float = 0.5, **more: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(METRICS, None) | {"seconds_step": 2.0, "clipped_share": 0.25}
    return {**numbers, "step": step, "reward": reward, "kl": 0.0123, **more}


def drawn(view: live.TrainingView, width: int = 80, **settings: Any) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=True, **settings).print(view)
    return file.getvalue().splitlines()


def view_of(folder: Path, *lines: dict[str, Any], updates: int = 90) -> live.TrainingView:
    view = live.TrainingView(RunDir(folder))
    for each in lines:
        view.update(each, updates)
    return view


def save_completion(folder: Path, step: int, completion: str, prompt: Any = "Capital?") -> None:
    row = {"prompt": prompt, "completion": completion, "reward": 0.5}
    append_jsonl(RunDir(folder).completions_file(step), row)


def test_the_view_shows_bar_reward_kl_length_guard_and_a_completion(tmp_path: Path) -> None:
    save_completion(tmp_path, 3, "It is Paris.", [{"role": "user", "content": "Capital?"}])
    lines = [line(step, step / 10, completion_tokens_mean=13.5) for step in (1, 2, 3)]
    bar, reward, kl, length, guard, prompt, completion = drawn(
        view_of(tmp_path, *lines), color_system=None
    )
    assert bar.split()[-3:] == ["3/90", "2:54", "left"]  # 87 updates of 2 s
    assert reward.split() == ["reward", "0.3", "▁▅█"]  # half of seven steps, rounded to even: 4
    assert kl.split() == ["KL", "0.0123", "nats", "per", "token"]
    assert length.split() == ["length", "13.5", "tokens,", "25%", "truncated"]
    assert guard.split()[1] == "●" * len(ALARMS)
    assert (prompt.strip(), completion.strip()) == ("> Capital?", "It is Paris.")


def test_guard_lights_differ_without_colours_and_name_the_alarm(tmp_path: Path) -> None:
    findings = [
        Finding(2, "loop_share", "warn", 0.1, 0.05),
        Finding(2, "entropy", "stop", 0.01, 0.02),
    ]
    view = view_of(tmp_path, line(2, guard=[str(each) for each in findings]), line(3))
    lights = drawn(view, 120, color_system=None)[4].split(maxsplit=2)
    assert lights[1].count("!") == 1
    assert lights[1].count("x") == 1
    assert lights[1].index("!") == list(ALARMS).index("loop_share")
    assert lights[2].strip() == "loop_share (warn), entropy (stop)"
    assert [live.severity_of(str(each)) for each in findings] == [
        ("loop_share", "warn"), ("entropy", "stop"),
    ]  # fmt: skip


@pytest.mark.parametrize("width", [40, 20])
def test_nothing_is_wider_than_a_narrow_terminal(width: int, tmp_path: Path) -> None:
    save_completion(tmp_path, 1, "word " * 200, "question " * 30)
    found = drawn(view_of(tmp_path, line(1, guard=["loop_share: much (warn level 1)"])), width)
    plain = drawn(view_of(tmp_path, line(1)), width, no_color=True, color_system=None)
    assert max(map(len, plain)) <= width
    assert len(plain) == 6 + live.SAMPLE_LINES
    assert len(found) == len(plain)


def test_a_completion_cannot_control_the_terminal(tmp_path: Path) -> None:
    save_completion(tmp_path, 1, HOSTILE)
    shown = drawn(view_of(tmp_path, line(1)), color_system=None)[-1]
    assert shown.strip() == "Paris [2J ]0;title    is the capital"


@pytest.mark.parametrize(
    ("values", "curve"),
    [([], ""), ([1.0, 1.0], "▁▁"), ([0.0, 7.0, 3.0], "▁█▄"), ([-1.0, -0.5], "▁█")],
)
def test_a_sparkline_spans_its_values(values: list[float], curve: str) -> None:
    assert live.sparkline(values) == curve


def shown_by(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with progress.training(RunDir(folder), quiet=False, as_json=False) as watch:
        watch.stage("loading [red]x[/red]")
        watch.progress(5, 10)
        logging.getLogger("test").warning("careful")
        watch.line(line(1), 90)
    return capsys.readouterr().err


def test_the_view_is_live_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    text = shown_by(tmp_path, capsys)
    assert "\x1b[1mloading [red]x[/red]" in text
    assert "5/10" in text
    assert "guard" in text
    assert "update 1/90" not in text
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in shown_by(tmp_path, capsys)
    monkeypatch.setenv("TERM", "dumb")
    told = ["loading [red]x[/red]", "50 % of 10", "update 1/90  reward 0.5  KL 0.0123  cut 25%"]
    dumb = shown_by(tmp_path, capsys).splitlines()
    assert [each for each in dumb if each in told] == told[:2]
    assert dumb[-1].startswith(told[2])
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b" not in shown_by(tmp_path, capsys)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config, and a run in place of `pipeline.train.run` that reports and returns a result."""

    def run(
        config: RunConfig, text: str, resume: str, allow_changed: bool, watch: ProgressCallbacks
    ) -> dict[str, Any]:
        logging.getLogger("test").warning("careful")
        watch.stage("training")
        watch.line(line(1), 2)
        watch.progress(5, 10)
        watch.progress(5, 10)
        folder = RunDir(config.output_dir)
        write_json(
            folder.guard,
            {"stopped": False, "step": 2, "result_step": 2, "text": None, "probe_rows": []},
        )
        return {"verdict": {"text": VERDICT}, "after": None}

    monkeypatch.setattr(train, "run", run)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    path = tmp_path / "c.yaml"
    path.write_text(f"data: {{train: x.jsonl}}\noutput_dir: '{tmp_path}/run'\n")
    return path


def test_quiet_prints_one_line(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = CliRunner().invoke(app, ["train", str(config), "--quiet"])
    assert done.exit_code == 0
    assert done.output == f"{tmp_path}/run: {VERDICT}\n"
    assert caplog.messages == []
    logging.getLogger("test").warning("after the run")
    assert caplog.messages == ["after the run"]


def test_json_prints_one_object_per_line(config: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", str(config), "--json"])
    assert done.exit_code == 0
    stage, update, count, result = map(json.loads, done.stdout.splitlines())
    assert stage == {"event": "stage", "text": "training"}
    assert update == {"event": "update", "updates": 2, **line(1)}
    assert count == {"event": "count", "done": 5, "total": 10}
    assert result == {
        "event": "result",
        "run": f"{tmp_path}/run",
        "eval": {"verdict": {"text": VERDICT}, "after": None},
        "guard": {"stopped": False, "step": 2, "result_step": 2, "text": None},
    }


def test_json_tells_errors_too(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["train", str(config), "--set", "training.seed=x", "--json"])
    (told,) = map(json.loads, done.stdout.splitlines())
    assert (told["event"], told["exit_code"]) == ("error", 2)
    assert [problem["where"] for problem in told["problems"]] == ["--set training.seed"]

    def fail(*_: object) -> None:
        raise EngineError("no engine")

    monkeypatch.setattr(train, "run", fail)
    done = CliRunner().invoke(app, ["train", str(config), "--json"])
    assert isinstance(done.exception, EngineError)
    assert json.loads(done.stdout) == {
        "event": "error", "exit_code": 1, "text": "no engine", "problems": [],
    }  # fmt: skip


def test_quiet_and_json_exclude_each_other(config: Path) -> None:
    with pytest.raises(ValueError, match="--quiet: cannot be combined with --json"):
        commands.train(config, quiet=True, as_json=True)

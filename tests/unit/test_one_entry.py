"""A reward, an export format, a metric and an alarm are one entry each; the rest follows."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from guard_levels import fired, recorded_runs

from remote_trainer.cli.texts import describe_update
from remote_trainer.docs_pages.guard_page import default_config, guard_reference
from remote_trainer.docs_pages.run_folder_page import run_folder_reference
from remote_trainer.evaluation import Answers, measure
from remote_trainer.export.registry import FORMATS
from remote_trainer.export_formats import EXPORT_FORMATS, ExportFormat
from remote_trainer.guard import ALARMS, Alarm, Guard, Levels
from remote_trainer.guard.signals import Signal
from remote_trainer.llama_cpp.convert import GGUF_TYPES
from remote_trainer.metrics import (
    EVALUATION_METRICS,
    METRICS,
    EvaluationMetric,
    LoggedMetric,
    in_rows,
)
from remote_trainer.records import (
    EncodedRow,
    Generation,
    RewardResult,
    Rollout,
    Row,
    Sample,
    SampledCompletion,
    Thinking,
)
from remote_trainer.report import write_report
from remote_trainer.run_dir import RunDir, read_jsonl
from remote_trainer.trainer.run_log import RunLog, completion_metrics

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent


def rollout() -> Rollout:
    completions = [
        SampledCompletion(
            sample=Sample(prompt, (9,), prompt, ids, ids[:2], text),
            result=RewardResult(reward, {"r": reward}),
            in_loss=True,
        )
        for prompt, text, ids, reward in (("a", "x y", (1, 2, 3), 1.0), ("b", "z", (4, 5), 0.0))
    ]
    return Rollout(step=1, completions=completions, groups_filtered=0.0, scores_from={})


# A metric.


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> LoggedMetric:
    """An entry for the longest completion."""
    metric = LoggedMetric(
        "tokens_longest",
        "Longest completion",
        "most tokens of one",
        "tokens",
        of=lambda rollout: max(rollout.tokens),
        row=5.5,
        chart="alone",
        compared=True,
        brief="longest {}",
    )
    monkeypatch.setitem(METRICS, metric.key, metric)
    return metric


def logged_line(folder: RunDir) -> dict[str, Any]:
    """The line that one update writes, with what TRL logs."""
    lines: list[dict[str, Any]] = []
    log = RunLog(folder, lambda line, updates: lines.append(line))
    state, control = SimpleNamespace(global_step=1, max_steps=1), SimpleNamespace()
    log.on_step_begin(None, state, control)
    log.record(rollout())
    log.on_step_end(None, state, control)
    log.on_log(None, state, control, {"loss": 0.5, "kl": 0.25, "temperature": 0.7})
    assert read_jsonl(folder.metrics) == lines
    return lines[0]


def test_an_added_metric_is_logged_told_and_reported(longest: LoggedMetric, tmp_path: Path) -> None:
    folders = [RunDir(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        folder.root.mkdir()
        folder.resolved_config.write_text("model: tiny\n")
        line = logged_line(folder)
    assert line["tokens_longest"] == 3.0
    assert completion_metrics(None)["tokens_longest"] is None
    assert "cut 50%" in describe_update(line, 1)
    assert "longest 3" in describe_update(line, 1)
    page = write_report(folders, tmp_path / "report.html").read_text()
    assert f"{longest.title} in training" in page
    assert "| `tokens_longest` | Longest completion | tokens | most" in run_folder_reference()


def test_an_added_number_of_trl_is_taken_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metric = LoggedMetric("temperature", "Temperature", "of sampling", from_trl=True)
    monkeypatch.setitem(METRICS, metric.key, metric)
    assert logged_line(RunDir(tmp_path))["temperature"] == 0.7


class Letters:
    """A tokenizer whose ids are characters."""

    def without_eos(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        return ids

    def thinking(self, prompt_ids: tuple[int, ...], content_ids: tuple[int, ...]) -> Thinking:
        return Thinking()

    def decode(self, ids: tuple[int, ...]) -> str:
        return "".join(map(chr, ids))


def test_an_added_metric_of_held_out_rows_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    shouted = EvaluationMetric(
        "shouted",
        "Shouting",
        "share of rows answered in capitals",
        of_row=lambda row: float(row.greedy.text.isupper()),
    )
    monkeypatch.setitem(EVALUATION_METRICS, "shouted", shouted)
    said = [Generation(tuple(map(ord, text)), (), (), True) for text in ("OSLO", "Rome", "Bern")]
    rows = [EncodedRow(Row("q", {}, "f:1"), (1,), "q") for _ in said]
    answers = Answers(said, [[each] for each in said], [None] * 3, 8)
    measured = measure(rows, answers, Letters(), "answer", None)  # type: ignore[arg-type]
    assert measured.per_row["shouted"] == [1.0, 0.0, 0.0]
    assert measured.metrics["shouted"] == pytest.approx(1 / 3)
    assert len(measured.metrics["ci95"]["shouted"]) == 2
    assert "| `shouted` | Shouting |  | share of rows answered in capitals |" in (
        run_folder_reference()
    )


def test_a_metric_of_held_out_rows_has_one_function() -> None:
    with pytest.raises(ValueError, match="x: write one of of_row, of_rows and of_model"):
        EvaluationMetric("x", "X", "")


def test_every_key_of_a_line_has_an_entry() -> None:
    run = TESTS / "run_folders/e3d3e9b/run"
    (*_, line) = read_jsonl(run / "metrics.jsonl")
    # In the order of the file; what was not logged then aside.
    assert list(line) == [key for key in METRICS if key != "logged"]
    measured = json.loads((run / "eval.json").read_text())["after"]
    # Of two numbers this run is older.
    assert set(EVALUATION_METRICS) - set(measured) == {"clipped_share", "general_logprob"}
    assert {key for key, value in measured.items() if isinstance(value, float)} <= set(
        EVALUATION_METRICS
    )


def test_a_number_computed_from_completions_is_averaged() -> None:
    with pytest.raises(ValueError, match="x: metrics computed from completions must be averaged"):
        LoggedMetric("x", "X", "", of=lambda rollout: 0.0, window="sum")


def test_no_two_metrics_have_one_place() -> None:
    places = [metric.row for metric in in_rows()]
    assert len(set(places)) == len(places)


# An export format.


def test_every_format_has_both_halves() -> None:
    assert list(FORMATS) == list(EXPORT_FORMATS)
    for name, each in FORMATS.items():
        assert each.facts is EXPORT_FORMATS[name], name
        assert set(each.gguf_types) <= set(GGUF_TYPES), name


def test_a_run_folder_knows_every_format(monkeypatch: pytest.MonkeyPatch) -> None:
    scroll = ExportFormat("A scroll", "roll", "ink", "a quill", "a monk", disk_factor=1)
    monkeypatch.setitem(EXPORT_FORMATS, "scroll", scroll)
    run = RunDir("run")
    assert {run.export(form) for form in EXPORT_FORMATS} == {run.adapter, *run.exports}
    assert run.root / "roll" in run.exports
    assert "| `scroll` | `roll/` | ink | a quill | 1 | 1 | a monk |" in run_folder_reference()


# An alarm.


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Alarm:
    """An entry for updates that take longer and longer, with a signal of its own."""
    alarm = Alarm(
        signal=Signal(
            "updates",
            "seconds_step",
            lambda first, latest: latest[-1]["seconds_step"] - first[0]["seconds_step"],
            "`seconds_step` of the last update, minus that of the first",
        ),
        levels=Levels(warn=10, stop=None),
        unit="seconds",
        seen="an update takes {value:.0f} seconds longer than the first",
        at_start="in the first updates one takes {value:.0f} seconds. Buy a computer.",
        advice=("Buy a computer.",),
        evidence="a test",
    )
    monkeypatch.setitem(ALARMS, "slow", alarm)
    return alarm


def test_an_added_alarm_fires(slow: Alarm) -> None:
    guard = Guard()
    for step in range(1, 11):
        guard.see_update({"step": step, "seconds_step": 10.0 if step < 10 else 30.0})
    text = "slow: an update takes 20 seconds longer than the first (warn level 10)"
    assert [str(finding) for finding in guard.findings] == [text]
    assert guard.before_training == ["in the first updates one takes 10 seconds. Buy a computer."]


def test_an_added_alarm_is_in_the_pages(slow: Alarm) -> None:
    page, config = ((ROOT / f).read_text() for f in ("docs/guard.md", "configs/default.yaml"))
    page = guard_reference(page, fired(recorded_runs()[:1]))
    assert f"| slow | {slow.signal.measured} | seconds | 10 or more | never |\n" in page
    assert "| slow | 0 / 0 | 0 / 0 | a test |\n" in page
    assert "    slow: {warn: 10, stop: null} " in default_config(config)


# A reward, an export format and an alarm in the program: the schema is made when it is imported.


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program with one more of each."""
    command = [sys.executable, str(TESTS / "fakes/one_more_of_each.py"), *arguments]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def config_file(folder: Path, model: Path, **reward: Any) -> str:
    data = folder / "rows.jsonl"
    rows = [{"prompt": f"What is {i} + {i}?"} for i in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model": {"name": str(model), "max_seq_length": 128},
        "data": {"train": str(data)},
        "reward": {"type": "shout", **reward},
        "training": {"max_prompt_length": 64, "max_completion_length": 8},
        "guard": {"levels": {"hoarse": {"stop": 0.5}}},
        "export": {"formats": ["lora", "scroll"]},
        "output_dir": str(folder / "run"),
    }
    file = folder / "config.yaml"
    file.write_text(json.dumps(config))
    return str(file)


def test_check_knows_an_added_reward_and_alarm_and_what_an_added_format_needs(
    llama_folder: Path, tmp_path: Path
) -> None:
    found = called("check", config_file(tmp_path, llama_folder, loudness=2))
    assert found.stderr.splitlines() == [
        "1 problem:",
        "  export.formats: scroll: parchment: buy a calf",
    ]
    mistyped = ("--set", "guard.levels.hoars.stop=0.5")
    wrong = called("check", config_file(tmp_path, llama_folder, loud=2), *mistyped)
    assert "loud: no such key; did you mean 'loudness'?" in wrong.stderr
    assert "hoars: no such key; did you mean 'hoarse'?" in wrong.stderr


def test_the_commands_tell_of_them() -> None:
    assert "How loud." in called("rewards", "shout").stdout
    assert "lora, merged_16bit, merged_4bit, gguf or scroll" in called("export", "--help").stdout

"""The runner of the study on two tasks; nothing is trained here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import learning_tasks
import pytest
from learning_tasks import ARMS, TASKS, config_of, run_arms, spread, table

from remote_trainer.config import load_config, parse_config
from remote_trainer.run_dir import RunDir, append_jsonl, read_jsonl

ROOT = Path(__file__).parents[2]
MEASURED = {
    "accuracy_sampled": 0.5,
    "accuracy_greedy": 0.25,
    "exact_match": 0.0,
    "answer_logprob": -1.0,
    "completion_tokens_mean": 10.0,
}


def line(arm: str, seed: int, **measured: float) -> dict[str, Any]:
    """A result as the runner writes it."""
    trained = {"updates": 90, "processor_seconds": 120.0 * (seed + 1), "stopped": seed == 1}
    return {
        "task": "extraction",
        "arm": arm,
        "seed": seed,
        **({} if arm == "base" else trained),
        "measured": {**MEASURED, **measured},
    }


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "tasks.jsonl"
    monkeypatch.setattr(learning_tasks, "RESULTS", file)
    return file


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "base"])
def test_configs_are_valid_and_share_what_belongs_to_the_task(name: str, arm: str) -> None:
    task = TASKS[name]
    settings = config_of(task, arm, 2, RunDir("runs/x"))
    config = parse_config(json.dumps(settings), "x.json")
    assert config.with_data().train == str(task.file("train"))
    assert config.with_data().eval == "auto"
    assert config.with_data().system_prompt == task.system_prompt
    assert config.training.max_completion_length == task.max_completion_length
    assert config.training.seed == 2


def test_arms_differ_in_what_their_name_says() -> None:
    def config(arm: str) -> Any:
        settings = config_of(TASKS["extraction"], arm, 0, RunDir("runs/x"))
        return parse_config(json.dumps(settings), "x.json")

    shipped = load_config(ROOT / "configs" / "supervised.yaml")
    assert config("mix").reward == shipped.reward
    assert config("mix").training.learning_rate == shipped.training.learning_rate
    assert config("random").training == config("mix").training == config("sft").training
    assert [reward.type for reward in config("random").reward] == ["random"]
    assert [reward.type for reward in config("plain").reward] == ["supervised"]
    assert config("plain").training.beta == parse_config("{}", "x").training.beta


def test_what_stands_in_the_results_is_not_run_again(
    results: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[tuple[str, int]] = []

    def run(task: str, arm: str, seed: int, work: Path) -> dict[str, Any]:
        ran.append((arm, seed))
        return line(arm, seed)

    monkeypatch.setattr(learning_tasks, "run_arm", run)
    append_jsonl(results, line("mix", 0))
    for seed in (0, 1):
        run_arms("extraction", seed, ["sft", "mix", "base"], tmp_path)
    run_arms("extraction", 1, ["sft", "mix", "base"], tmp_path)
    assert ran == [("base", 0), ("sft", 0), ("mix", 1), ("sft", 1)]
    assert len(read_jsonl(results)) == 5


def test_fine_tuning_gets_the_time_of_mix(results: Path) -> None:
    append_jsonl(results, line("mix", 0))
    append_jsonl(results, line("mix", 1))
    assert learning_tasks.budget("extraction", 1) == 240.0
    with pytest.raises(SystemExit, match="seed 2: needs the time of mix; add mix to --arms"):
        learning_tasks.budget("extraction", 2)


def test_a_run_takes_the_processor_time_of_its_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunDir(tmp_path / "run")

    def call(arguments: Sequence[object], output: Path, accepted: object = ()) -> Any:
        append_jsonl(folder.metrics, {"step": 1, "seconds_step": 30.0})
        append_jsonl(folder.metrics, {"step": 2, "seconds_step": 10.0})
        return 0.5, 3  # other programs had the other half of the processor; the guard stopped it

    monkeypatch.setattr(learning_tasks, "call", call)
    folder.root.mkdir()
    trained = learning_tasks.train("extraction", "mix", 0, tmp_path / "run.json", folder)
    assert trained == {"updates": 2, "processor_seconds": 20.0, "stopped": True}


def test_a_child_has_one_thread_and_reports_its_share_and_code(tmp_path: Path) -> None:
    output = tmp_path / "out.txt"
    code = "import os; print(os.environ['OMP_NUM_THREADS']); raise SystemExit(3)"
    share, found = learning_tasks.call(["-c", code], output, accepted=(0, 3))
    assert (output.read_text(), found) == ("1\n", 3)
    assert 0 < share < 2
    with pytest.raises(SystemExit, match="went wrong"):
        learning_tasks.call(["-c", "raise SystemExit('went wrong')"], output)


def test_the_table_has_means_and_ranges_over_seeds() -> None:
    lines = [line("mix", seed, accuracy_sampled=0.5 + seed / 10) for seed in (1, 0)]
    head, _, base, mix = table([*lines, line("base", 0)]).splitlines()
    assert head.startswith("| task | arm | seeds | sampled | greedy |")
    assert base == "| extraction | base | 1 | 0.500 | 0.250 | 0.000 | -1.000 | 10.000 | - | - | - |"
    assert mix.startswith("| extraction | mix | 2 | 0.550 (0.500 to 0.600) |")
    assert mix.endswith("| 90 (90 to 90) | 3.0 (2.0 to 4.0) | 1 |")


def test_what_was_not_measured_is_a_dash() -> None:
    assert spread([None, None]) == "-"
    assert spread([None, 1.0]) == "1.000"

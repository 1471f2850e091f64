"""The guard at work on the tiny model: it stops, keeps an earlier adapter, and survives a kill."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_trainer import SCORED, adapter_of, load, rows_for

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.errors import RunInterrupted
from remote_trainer.evaluation.everyday import everyday_logprobs
from remote_trainer.evaluation.probe import Measured, Probe, probe_places
from remote_trainer.guard import GUARD_KEYS
from remote_trainer.records import ScoreRequest
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir, read_jsonl
from remote_trainer.trainer import checkpoint
from remote_trainer.trainer import guard_callback as guarding
from remote_trainer.trainer.loop import train

QUIET: Measured = {
    "accuracy": 0.5,
    "answer_likelihood": 0.5,
    "fluency": -1.0,
    "prompt_dependence": 1.0,
    "general_logprob": -3.0,
    "duplicate_share": 0.0,
    "distinct_3": None,
    "completion_tokens_mean": 4.0,
    "clipped_share": 0.0,
}
PER_ROW = ("accuracy", "answer_likelihood", "fluency", "prompt_dependence", "general_logprob")
NO_LEVELS = {"warn": None, "stop": None}


def config_with(guard: dict[str, Any], **training: Any) -> RunConfig:
    """Only ``guard``'s own levels are in force: a random model breaks most others by chance."""
    from remote_trainer.guard import ALARMS

    settings = {
        "learning_rate": 1e-2, "num_generations": 4, "gradient_accumulation_steps": 2,
        "max_prompt_length": 40, "max_completion_length": 6, "max_steps": 8, "save_steps": 2,
        "keep_checkpoints": 9, "group_filter": {"min_std": 0}, **training,
    }  # fmt: skip
    levels = dict.fromkeys(ALARMS, NO_LEVELS) | guard.get("levels", {})
    config = {"data": {"train": "-"}, "reward": SCORED, "training": settings}
    return parse_config(json.dumps({**config, "guard": {**guard, "levels": levels}}), "c")


def run(
    model: Path, folder: Path, config: RunConfig, resume_from: Path | None = None
) -> TransformersBackend:
    backend = load(model)
    reward = RewardFunction(backend, config.reward, config.training.max_completion_length)
    rows = rows_for(backend)
    train(backend, reward, rows, config, RunDir(folder), resume_from, held_out=rows)
    return backend


def guard_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RunDir(folder).guard.read_text())
    assert list(found) == list(GUARD_KEYS)
    return found


def probes_say(monkeypatch: pytest.MonkeyPatch, values: dict[int, dict[str, Any]]) -> None:
    """Probe number i finds QUIET with ``values[i]``."""
    calls = 0

    def measure(self: Probe) -> Measured:
        nonlocal calls
        calls += 1
        found = QUIET | values.get(calls - 1, {})
        return {**found, "per_row": {name: [found[name]] * 32 for name in PER_ROW}}

    monkeypatch.setattr(Probe, "measure", measure)


def same(backend: TransformersBackend, tensors: dict[str, torch.Tensor]) -> bool:
    """Whether the adapter is the one of a checkpoint, to the last bit."""
    mine = {name.replace(".default", ""): t for name, t in adapter_of(backend).items()}
    return mine.keys() == tensors.keys() and all(
        torch.equal(mine[name], tensor) for name, tensor in tensors.items()
    )


STOP_ON_ACCURACY = {"levels": {"probe_accuracy_lost": {"warn": 0.1, "stop": 0.3}}}


def test_a_stop_gives_back_the_adapter_from_before_the_first_warning(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes_say(monkeypatch, {2: {"accuracy": 0.35}, 3: {"accuracy": 0.1}})
    config = config_with(STOP_ON_ACCURACY)
    backend = run(llama_folder, tmp_path, config)
    guard = guard_of(tmp_path)
    assert guard["stopped"] is True
    assert (guard["step"], guard["result_step"]) == (6, 2)
    assert [(f["step"], f["severity"]) for f in guard["findings"]] == [(4, "warn"), (6, "stop")]
    assert "first warning after update 4" in guard["text"]
    assert same(backend, load_file(RunDir(tmp_path).checkpoint(2) / "adapter.safetensors"))
    lines = read_jsonl(RunDir(tmp_path).metrics)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [bool(line["guard"]) for line in lines] == [False] * 3 + [True, False, True]
    assert lines[3]["probe"]["accuracy"] == 0.35
    assert lines[4]["probe"] is None


def test_a_stop_gives_back_no_adapter_that_lost_a_little(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost_too_little_to_warn = QUIET["accuracy"] - 0.05
    probes_say(monkeypatch, {2: {"accuracy": lost_too_little_to_warn}, 3: {"accuracy": 0.1}})
    run(llama_folder, tmp_path, config_with(STOP_ON_ACCURACY))
    guard = guard_of(tmp_path)
    assert [(f["step"], f["severity"]) for f in guard["findings"]] == [(6, "stop")]
    assert guard["result_step"] == 2


def test_a_stopped_run_does_not_go_on_when_it_is_started_again(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the stop, before the adapter was exported."""
    probes_say(monkeypatch, {2: {"accuracy": 0.35}, 3: {"accuracy": 0.1}})
    config = config_with(STOP_ON_ACCURACY)
    run(llama_folder, tmp_path, config)
    before = guard_of(tmp_path)
    last = checkpoint.newest_checkpoint(RunDir(tmp_path))
    again = run(llama_folder, tmp_path, config, last)
    assert guard_of(tmp_path) == before
    assert same(again, load_file(RunDir(tmp_path).checkpoint(2) / "adapter.safetensors"))
    assert len(read_jsonl(RunDir(tmp_path).metrics)) == 6


@pytest.mark.parametrize("action", ["warn", "off"])
def test_other_actions_go_on_to_the_end(
    action: str, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes_say(monkeypatch, {2: {"accuracy": 0.0}})
    backend = run(llama_folder, tmp_path, config_with({**STOP_ON_ACCURACY, "action": action}))
    guard = guard_of(tmp_path)
    assert (guard["stopped"], guard["text"], guard["result_step"]) == (False, None, 8)
    assert bool(guard["findings"]) == (action == "warn")
    assert bool(guard["probes"]) == (action == "warn")
    assert same(backend, load_file(RunDir(tmp_path).checkpoint(8) / "adapter.safetensors"))


def test_batches_stop_a_run_too(llama_folder: Path, tmp_path: Path) -> None:
    backend = run(llama_folder, tmp_path, config_with({"levels": {"kl": {"stop": 0.0}}}))
    guard = guard_of(tmp_path)
    # Five lines fill the window; warnings count from then on, so the probe of update 4 was clean.
    assert (guard["step"], guard["result_step"]) == (5, 4)
    assert same(backend, load_file(RunDir(tmp_path).checkpoint(4) / "adapter.safetensors"))
    assert RunDir(tmp_path).checkpoint(5).exists()


@pytest.mark.parametrize(
    ("early", "every_steps", "looks"),
    [
        (4, 0, [0, 2, 4, 7, 9]),  # closely at first, then as often as is saved, and at the end
        (0, 0, [0, 7, 8, 9]),  # closely behind the warning at 7, not behind the quiet look at 8
        (4, 3, [0, 3, 6, 9]),  # as the config says
    ],
)
def test_early_updates_and_those_behind_a_warning_are_looked_at_closely(
    early: int,
    every_steps: int,
    looks: list[int],
    llama_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guarding, "EARLY_UPDATES", early)
    monkeypatch.setattr(guarding, "WATCHED_INTERVAL", 2)
    probes_say(monkeypatch, {1: {"accuracy": 0.35}} if early == 0 else {})
    config = config_with(STOP_ON_ACCURACY, max_steps=9, save_steps=7)
    evaluation = config.evaluation.model_copy(update={"every_steps": every_steps})
    run(llama_folder, tmp_path, config.model_copy(update={"evaluation": evaluation}))
    assert [probe["step"] for probe in guard_of(tmp_path)["probes"]] == looks


def test_the_best_adapter_is_kept(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = {"accuracy": 0.9, "answer_likelihood": 0.4}
    probes_say(monkeypatch, {1: {"accuracy": 0.9, "answer_likelihood": 0.3}, 2: best, 3: best})
    backend = run(llama_folder, tmp_path, config_with({}, keep="best"))
    assert guard_of(tmp_path)["result_step"] == 4
    assert same(backend, load_file(RunDir(tmp_path).checkpoint(4) / "adapter.safetensors"))


def test_what_the_guard_knows_survives_an_interruption(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(STOP_ON_ACCURACY, keep="best")
    finds = {2: {"accuracy": 0.35}, 3: {"accuracy": 0.1}}
    probes_say(monkeypatch, finds)
    run(llama_folder, tmp_path / "whole", config)

    probes_say(monkeypatch, finds)
    see = Probe.measure
    calls = 0

    def interrupt(self: Probe) -> Measured:
        nonlocal calls
        calls += 1
        if calls == 3:
            signal.raise_signal(signal.SIGTERM)
        return see(self)

    monkeypatch.setattr(Probe, "measure", interrupt)
    with pytest.raises(RunInterrupted, match="stopped by a signal after update 5; a checkp"):
        run(llama_folder, tmp_path / "cut", config)
    last = checkpoint.newest_checkpoint(RunDir(tmp_path / "cut"))
    assert last is not None
    assert last.name == "step-000005"  # the signal came after update 4 had been looked at
    backend = run(llama_folder, tmp_path / "cut", config, last)
    assert guard_of(tmp_path / "cut") == guard_of(tmp_path / "whole")
    adapter = RunDir(tmp_path / "whole").checkpoint(2) / "adapter.safetensors"
    assert same(backend, load_file(adapter))


def test_what_a_probe_measures(llama: TransformersBackend) -> None:
    """Against the scorer, row by row."""
    rows = rows_for(llama)
    probe = Probe(llama, rows, "answer", 6)
    found = probe.measure()
    assert found == probe.measure()
    from remote_trainer.records import Sampling

    answers = llama.generate([row.prompt_ids for row in rows], Sampling(6, temperature=0))
    own, other, after = [], [], []
    for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        (here,) = llama.score([ScoreRequest.of(row.prompt_ids, answer.ids)])
        next_prompt = rows[(i + 1) % len(rows)].prompt_ids
        (there,) = llama.score([ScoreRequest.of(next_prompt, answer.ids)])
        content = llama.prompt_tokenizer.without_eos(answer.ids)
        reference = llama.prompt_tokenizer.encode(row.row.fields["answer"])
        context = row.prompt_ids + content + llama.prompt_tokenizer.encode("\nAnswer: ")
        (answered,) = llama.score([ScoreRequest.of(context, reference)])
        own.append(sum(here) / len(here))
        other.append(sum(there) / len(there))
        empty = not llama.prompt_tokenizer.decode(content).strip()
        chances = torch.tensor(answered).exp()
        after.append(0.0 if empty else float(chances.mean()))
    count = len(rows)
    assert found["fluency"] == pytest.approx(sum(own) / count, abs=1e-5)
    dependence = sum(a - b for a, b in zip(own, other, strict=True)) / count
    assert found["prompt_dependence"] == pytest.approx(dependence, abs=1e-5)
    assert found["answer_likelihood"] == pytest.approx(sum(after) / count, abs=1e-5)
    assert found["accuracy"] == 0.0
    everyday = found["per_row"]["general_logprob"]
    assert everyday == everyday_logprobs(llama)
    assert found["general_logprob"] == pytest.approx(sum(everyday) / 40)


def test_a_probe_without_references_has_no_accuracy(llama: TransformersBackend) -> None:
    found = Probe(llama, rows_for(llama), "no such field", 6).measure()
    assert found["accuracy"] is None
    assert found["answer_likelihood"] is None
    assert found["fluency"] is not None


def test_a_probe_takes_half_of_the_rows_within_limits(llama: TransformersBackend) -> None:
    for count, wanted in ((6, 6), (20, 16), (50, 25), (149, 32)):
        places = probe_places(rows_for(llama, count))
        assert len(places) == len(set(places)) == wanted
        assert max(places) < count
    assert max(probe_places(rows_for(llama, 149))) > 140  # spread over all of them


def test_a_model_that_answers_all_alike_from_the_start_is_not_stopped_for_it(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    probes_say(monkeypatch, {i: {"duplicate_share": 0.83} for i in range(9)})
    levels = {"levels": {"probe_duplicate_share": {"warn": 0.15, "stop": 0.4}}}
    run(llama_folder, tmp_path, config_with(levels))
    guard = guard_of(tmp_path)
    assert (guard["stopped"], guard["findings"], guard["step"]) == (False, [], 8)
    [sentence] = guard["before_training"]
    assert "before training 83% of the probe's rows" in sentence
    assert [r.message for r in caplog.records].count(f"guard, {sentence}") == 1

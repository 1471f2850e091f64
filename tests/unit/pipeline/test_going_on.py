"""A finished run is called again with another config: what is done again, and what is said."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from test_pipeline import cache, data_files, text_for

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.errors import UserInputError
from remote_trainer.pipeline import changes
from remote_trainer.pipeline.changes import Inputs, Stage, find_changes
from remote_trainer.pipeline.folder import forget, is_finished, open_folder
from remote_trainer.pipeline.train import run
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.run_dir import RunDir, read_jsonl, write_json

__all__ = ["cache", "data_files"]  # fixtures

ADAPTER = "adapter/adapter_model.safetensors"


def text_of(model: Path, files: Any, output: Path, steps: int, **changes: Any) -> str:
    settings = json.loads(text_for(model, files, output, **changes))
    settings["training"] |= {"max_steps": steps, "save_steps": 2}
    return json.dumps(settings)


def done(text: str, **how: Any) -> tuple[dict[str, Any], list[str]]:
    """eval.json's content, and the stages that were told."""
    told: list[str] = []
    return run(
        parse_config(text, "c"), text, watch=ProgressCallbacks(stage=told.append), **how
    ), told


@pytest.fixture(scope="module")
def at_once(
    llama_folder: Path, data_files: Any, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDir:
    """Six updates in one go."""
    folder = tmp_path_factory.mktemp("at-once") / "run"
    done(text_of(llama_folder, data_files, folder, 6))
    return RunDir(folder)


@pytest.fixture(scope="module")
def three(
    llama_folder: Path, data_files: Any, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDir:
    """Three updates, done."""
    folder = tmp_path_factory.mktemp("three") / "run"
    done(text_of(llama_folder, data_files, folder, 3))
    return RunDir(folder)


@pytest.fixture
def short(three: RunDir, tmp_path: Path) -> RunDir:
    """A copy of it to change."""
    shutil.copytree(three.root, tmp_path / "run")
    return RunDir(tmp_path / "run")


def test_a_finished_run_that_gets_longer_goes_on_as_if_never_stopped(
    short: RunDir, at_once: RunDir, llama_folder: Path, data_files: Any
) -> None:
    text = text_of(llama_folder, data_files, short.root, 6)
    with pytest.raises(UserInputError) as refused:
        done(text)
    how, difference = str(refused.value.problems[-1]), str(refused.value.problems[0])
    assert difference == f"training.max_steps: was 3 in {short}, now 6"
    assert f"--allow-changed continues training from {short.checkpoint(3)} to 6 updates" in how
    old = json.loads(short.eval.read_text())
    page = short.report.read_bytes()
    result, told = done(text, allow_changed=True)
    assert "training" in told
    assert (short.root / ADAPTER).read_bytes() == (at_once.root / ADAPTER).read_bytes()
    assert [line["step"] for line in read_jsonl(short.metrics)] == [1, 2, 3, 4, 5, 6]
    mine, theirs = (
        [{k: line[k] for k in ("reward", "kl", "learning_rate")} for line in read_jsonl(f.metrics)]
        for f in (short, at_once)
    )
    assert mine == theirs
    assert result["after"] == json.loads(at_once.eval.read_text())["after"]
    assert result["after"] != old["after"]
    assert short.report.read_bytes() != page
    assert "- Updates: 6\n" in (short.adapter / "README.md").read_text()
    assert is_finished(short, parse_config(text, "c").export)
    assert done(text) == (result, [])


def test_more_passes_are_a_longer_run_too(
    llama_folder: Path, data_files: Any, cache: Path, tmp_path: Path
) -> None:
    settings = json.loads(text_of(llama_folder, data_files, tmp_path / "run", 1))
    del settings["training"]["max_steps"]
    for passes, updates in ((0.5, 3), (1.0, 6)):  # 12 rows, 2 a time
        settings["training"]["num_train_epochs"] = passes
        done(json.dumps(settings), allow_changed=True)
        steps = [line["step"] for line in read_jsonl(RunDir(tmp_path / "run").metrics)]
        assert steps == list(range(1, updates + 1))


def test_changes_that_leave_nothing_to_train_are_refused_and_nothing_is_lost(
    short: RunDir, llama_folder: Path, data_files: Any
) -> None:
    settings = json.loads(text_of(llama_folder, data_files, short.root, 3))
    settings["training"]["learning_rate"] = 0.5
    for steps, message in (
        (3, "3 updates are done and 3 are configured"),
        (2, "and 2 are configured"),
    ):
        settings["training"]["max_steps"] = steps
        for allow in (False, True):
            with pytest.raises(UserInputError, match=message) as refused:
                done(json.dumps(settings), allow_changed=allow)
            assert "raise training.max_steps" in str(refused.value)
            assert f"--resume {short.checkpoints}/step-... --allow-changed" in str(refused.value)
    assert is_finished(
        short, parse_config(text_of(llama_folder, data_files, short.root, 3), "c").export
    )


def test_an_added_export_only_exports(short: RunDir, llama_folder: Path, data_files: Any) -> None:
    formats = {"formats": ["lora", "merged_16bit"]}
    text = text_of(llama_folder, data_files, short.root, 3, export=formats)
    with pytest.raises(UserInputError, match="trains nothing and repeats exports and report"):
        done(text)
    before = short.eval.stat().st_mtime_ns, (short.root / ADAPTER).stat().st_mtime_ns
    _, told = done(text, allow_changed=True)
    assert (short.eval.stat().st_mtime_ns, (short.root / ADAPTER).stat().st_mtime_ns) == before
    assert not {"training"} & set(told)
    assert not [stage for stage in told if "held-out rows" in stage]
    assert (short.root / "merged_16bit/proof.json").exists()
    assert "merged_16bit" in short.report.read_text()
    assert done(text)[1] == []


def test_another_way_to_evaluate_only_evaluates(
    short: RunDir, llama_folder: Path, data_files: Any
) -> None:
    text = text_of(llama_folder, data_files, short.root, 3, evaluation={"samples": 3})
    with pytest.raises(UserInputError, match="trains nothing and repeats evaluation and report"):
        done(text)
    old, weights = json.loads(short.eval.read_text()), (short.root / ADAPTER).read_bytes()
    result, told = done(text, allow_changed=True)
    assert "training" not in told
    assert result["after"]["accuracy_greedy"] == old["after"]["accuracy_greedy"]
    assert result != old
    assert (short.root / ADAPTER).read_bytes() == weights


def test_a_run_whose_checkpoints_are_gone_names_the_other_way(
    short: RunDir, llama_folder: Path, data_files: Any
) -> None:
    forget_checkpoints(short)
    text = text_of(llama_folder, data_files, short.root, 6)
    for allow in (False, True):
        with pytest.raises(
            UserInputError, match=r"name this folder as model\.adapter of a new run"
        ):
            done(text, allow_changed=allow)
    assert (short.root / ADAPTER).exists()


def forget_checkpoints(folder: RunDir) -> None:
    shutil.rmtree(folder.checkpoints)


def test_a_run_that_the_guard_stopped_goes_on_only_where_it_may(
    short: RunDir, llama_folder: Path, data_files: Any
) -> None:
    guard = json.loads(short.guard.read_text())
    write_json(short.guard, {**guard, "stopped": True})
    text = text_of(llama_folder, data_files, short.root, 6)
    config = parse_config(text, "c")
    inputs = inputs_of(short)
    with pytest.raises(
        UserInputError, match=r"and would stop it again; .* write guard\.action: warn"
    ):
        open_folder(short, with_auto_resolved(short, config), inputs, "auto", allow_changed=True)
    warn = config.model_copy(update={"guard": config.guard.model_copy(update={"action": "warn"})})
    found = open_folder(short, with_auto_resolved(short, warn), inputs, "auto", allow_changed=True)
    assert found == short.checkpoint(3)
    assert not short.adapter.exists()


def with_auto_resolved(folder: RunDir, config: RunConfig) -> RunConfig:
    from remote_trainer.pipeline import backend

    return backend.with_auto_resolved(config, backend.engine_of(config))


def inputs_of(folder: RunDir) -> Inputs:
    report = json.loads(folder.data_report.read_text())
    return Inputs(report["sha256"], report["train"]["sha256"], report["adapter_sha256"])


def test_an_earlier_checkpoint_is_gone_on_from_with_all_results_new(
    short: RunDir, at_once: RunDir, llama_folder: Path, data_files: Any
) -> None:
    text = text_of(llama_folder, data_files, short.root, 6)
    done(text, resume=str(short.checkpoint(2)), allow_changed=True)
    assert (short.root / ADAPTER).read_bytes() == (at_once.root / ADAPTER).read_bytes()
    assert (
        json.loads(short.eval.read_text())["after"]
        == (json.loads(at_once.eval.read_text())["after"])
    )


def test_a_removed_stage_takes_those_behind_it_along(at_once: RunDir, tmp_path: Path) -> None:
    for stage, left in (
        (Stage.NONE, [True, True, True]),
        (Stage.EXPORT, [True, True, False]),
        (Stage.EVALUATION, [True, False, False]),
        (Stage.TRAINING, [False, False, False]),
    ):
        folder = RunDir(tmp_path / stage.name)
        shutil.copytree(at_once.root, folder.root)
        forget(folder, stage)
        there = [path.exists() for path in (folder.adapter, folder.eval, folder.report)]
        assert there == left


@pytest.mark.parametrize(
    ("section", "value", "stage"),
    [
        ("training", {"learning_rate": 0.5}, Stage.TRAINING),
        ("training", {"keep_checkpoints": 5}, Stage.NONE),
        ("generation", {"temperature": 0.5}, Stage.TRAINING),
        ("export", {"gguf_type": "f16"}, Stage.EXPORT),
        ("evaluation", {"rows": 2}, Stage.EVALUATION),
        ("evaluation", {"every_steps": 2}, Stage.TRAINING),
        ("data", {"eval": "none"}, Stage.EVALUATION),
        ("data", {"eval": "auto"}, Stage.TRAINING),
    ],
)
def test_every_change_belongs_to_a_stage(
    section: str, value: dict[str, Any], stage: Stage, at_once: RunDir
) -> None:
    settings = json.loads(json.dumps(parse_config(
        at_once.resolved_config.read_text(), "c").model_dump(mode="json")
    ))  # fmt: skip
    settings[section] |= value
    config = parse_config(json.dumps(settings), "c")
    found = find_changes(at_once, config, inputs_of(at_once))
    assert [change.key for change in found] == [f"{section}.{key}" for key in value]
    assert changes.stage_of(found) is stage


def test_another_path_to_the_same_content_is_no_change(
    at_once: RunDir, llama_folder: Path, data_files: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(llama_folder, copy)
    for file in data_files:
        shutil.copy(file, tmp_path)
    names = tuple(tmp_path / file.name for file in data_files)
    text = text_of(copy, names, at_once.root, 6)
    assert done(text)[1] == []  # finished, and still the same run
    inputs = replace(inputs_of(at_once), base=copy)
    config = with_auto_resolved(at_once, parse_config(text, "c"))
    assert find_changes(at_once, config, inputs) == []
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    (change,) = find_changes(at_once, config, inputs)
    assert change.key == "model.name"
    assert f"now {str(copy)!r}" in change.message
    same_name = config.model_copy(
        update={"model": config.model.model_copy(update={"name": str(llama_folder)})}
    )
    (change,) = find_changes(at_once, same_name, inputs)
    assert f"the weights in {copy} changed after {at_once} was created" in change.message

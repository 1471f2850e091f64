"""Whole runs on the tiny model, through the functions the commands call."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

from remote_trainer.cli import commands
from remote_trainer.config import RunConfig, load_config, parse_config
from remote_trainer.errors import UserInputError
from remote_trainer.evaluation import collect_answers
from remote_trainer.export import needs
from remote_trainer.llama_cpp import convert as gguf
from remote_trainer.pipeline.backend import engine_of, with_auto_resolved
from remote_trainer.pipeline.changes import Inputs
from remote_trainer.pipeline.check import batch_plan, check_config
from remote_trainer.pipeline.evaluate import evaluate_model
from remote_trainer.pipeline.folder import (
    is_finished,
    move_aside,
    open_folder,
    require_checkpoint,
)
from remote_trainer.pipeline.score import score_file
from remote_trainer.pipeline.train import run
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.run_dir import RunDir, read_jsonl, write_text

KINDS = ["capital", "fruit"]


@pytest.fixture(scope="module")
def data_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")

    def rows(start: int, count: int) -> str:
        lines = [
            {"prompt": f"What is {i} + {i}?", "answer": f"{2 * i}", "kind": KINDS[i % 2]}
            for i in range(start, start + count)
        ]
        return "".join(json.dumps(line) + "\n" for line in lines)

    (folder / "train.jsonl").write_text(rows(0, 12))
    (folder / "eval.jsonl").write_text(rows(50, 4))
    return folder / "train.jsonl", folder / "eval.jsonl"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("REMOTE_TRAINER_CACHE", str(folder))
        yield folder


def text_for(model: Path, files: tuple[Path, Path], output: Path, **changes: Any) -> str:
    settings: dict[str, Any] = {
        "model": {"name": str(model), "max_seq_length": 256},
        "lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
        "data": {"train": str(files[0]), "eval": str(files[1])},
        "reward": [
            {"type": "supervised"}, {"type": "inverse_loss", "weight": 0.1, "truncated": "score"},
        ],
        "training": {
            "learning_rate": 1e-2, "num_generations": 4, "gradient_accumulation_steps": 2,
            "max_prompt_length": 64, "max_completion_length": 6, "max_steps": 3, "save_steps": 1,
            "group_filter": {"min_std": 0},
        },
        "evaluation": {"samples": 2},
        "output_dir": str(output),
    }  # fmt: skip
    return json.dumps({**settings, **changes})


@pytest.fixture(scope="module")
def finished(
    llama_folder: Path,
    data_files: tuple[Path, Path],
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[RunDir, RunConfig, str, dict[str, Any]]:
    output = tmp_path_factory.mktemp("runs") / "tiny"
    text = text_for(llama_folder, data_files, output)
    config = parse_config(text, "c")
    return RunDir(output), config, text, run(config, text)


def test_a_run_leaves_everything_the_contract_names(finished: Any) -> None:
    folder, _, text, result = finished
    assert is_finished(folder, finished[1].export)
    assert folder.config.read_text() == text
    config = with_auto_resolved(finished[1], engine_of(finished[1]))
    assert (config.model.backend, config.model.load_in_4bit) == ("transformers", False)
    assert parse_config(folder.resolved_config.read_text(), "r") == config
    assert [line["step"] for line in read_jsonl(folder.metrics)] == [1, 2, 3]
    assert {"python", "torch", "trl", "device"} <= set(json.loads(folder.environment.read_text()))
    report = json.loads(folder.data_report.read_text())
    assert (report["train"]["rows_kept"], report["eval"]["rows_kept"]) == (12, 4)
    tested = report["reward_self_test"]
    assert tested["rows"] == 12
    assert 0 <= tested["right_above_wrong"] <= 12
    assert result == json.loads(folder.eval.read_text())
    names = {
        "rows", "accuracy_greedy", "accuracy_sampled", "exact_match", "answer_logprob", "reward",
        "completion_tokens_mean", "distinct_3", "ci95",
    }  # fmt: skip
    assert names <= set(result["before"])
    assert names <= set(result["after"])
    assert result["after"] != result["before"]
    assert result["after"]["general_logprob"] != result["before"]["general_logprob"]
    answers = read_jsonl(folder.answers)
    assert [line["references"] for line in answers] == [[str(2 * i)] for i in range(50, 54)]
    for when in ("before", "after"):
        right = [line[when]["greedy"]["right"] for line in answers]
        assert sum(right) / 4 == result[when]["accuracy_greedy"]
        ended = [each["ended"] for line in answers for each in line[when]["sampled"]]
        assert result[when]["clipped_share"] == pytest.approx(1 - sum(ended) / 8)
    assert result["verdict"]["text"] in folder.report.read_text().replace("&#39;", "'")
    assert "remote_trainer" in (folder.adapter / "README.md").read_text()
    kinds = {file.suffix for file in folder.root.rglob("*") if file.is_file()}
    assert kinds == {".yaml", ".json", ".jsonl", ".safetensors", ".html", ".md", ".jinja"}


def test_the_adapter_on_disk_is_the_trained_model(finished: Any) -> None:
    from safetensors.torch import load_file

    folder, config, _, result = finished
    saved = load_file(folder.adapter / "adapter_model.safetensors")
    trained = load_file(folder.complete_checkpoints()[-1] / "adapter.safetensors")
    assert saved.keys() == trained.keys()
    assert all((saved[name] == trained[name]).all() for name in saved)
    again = evaluate_model(str(folder), Path(config.with_data().eval), base=True, against=None)
    assert again["after"] == result["after"]
    assert again["before"] == result["before"]
    assert again["verdict"] == result["verdict"]


def test_a_finished_run_is_not_done_again(finished: Any) -> None:
    folder, config, text, result = finished
    stages: list[str] = []
    before = folder.report.stat().st_mtime_ns
    assert run(config, text, watch=ProgressCallbacks(stage=stages.append)) == result
    assert stages == []
    assert folder.report.stat().st_mtime_ns == before


def test_lost_results_are_made_again_without_training(
    finished: Any, tmp_path: Path, llama_folder: Path, data_files: Any
) -> None:
    import shutil

    folder, _, _, result = finished
    copy = RunDir(tmp_path / "copy")
    shutil.copytree(folder.root, copy.root)
    copy.report.unlink()
    copy.eval.unlink()
    stages: list[str] = []
    text = text_for(llama_folder, data_files, copy.root)
    assert (
        run(parse_config(text, "c"), text, watch=ProgressCallbacks(stage=stages.append)) == result
    )
    assert "training" not in stages


def test_a_stop_of_the_guard_is_exit_3_with_result_and_report(
    llama_folder: Path, data_files: Any, cache: Path, tmp_path: Path, capfd: Any
) -> None:
    """The adapter of a probe without warnings is the result; the probe's rows do not judge it."""
    levels = {"kl": {"warn": 0.0, "stop": 0.0}}
    more = "".join(
        json.dumps({"prompt": f"What is {i} + {i}?", "answer": f"{2 * i}"}) + "\n"
        for i in range(50, 90)
    )
    (tmp_path / "eval.jsonl").write_text(more)
    training = json.loads(text_for(llama_folder, data_files, tmp_path))["training"]
    text = text_for(
        llama_folder,
        (data_files[0], tmp_path / "eval.jsonl"),
        tmp_path / "run",
        guard={"levels": levels},
        training={**training, "max_steps": 9},
    )
    (tmp_path / "c.yaml").write_text(text)
    for _ in range(2):  # asked again, it answers the same
        with pytest.raises(typer.Exit) as stopped:
            commands.train(tmp_path / "c.yaml", quiet=True)
        assert stopped.value.exit_code == 3
        told = capfd.readouterr()
        assert "guard: Stopped after update 5" in told.err
        assert "no measurable change" in told.out.lower()
    folder = RunDir(tmp_path / "run")
    assert is_finished(folder, parse_config(text, "c").export)
    guard = json.loads(folder.guard.read_text())
    assert (guard["stopped"], guard["result_step"], len(guard["probe_rows"])) == (True, 4, 20)
    result = json.loads(folder.eval.read_text())
    assert result["rows"] == 40
    assert "on 20 held-out rows" in result["verdict"]["text"]
    assert "- Updates: 4\n" in (folder.adapter / "README.md").read_text()


def test_the_best_adapter_needs_references_to_be_found(
    llama_folder: Path, data_files: Any, tmp_path: Path
) -> None:
    (tmp_path / "eval.jsonl").write_text('{"prompt": "Say something."}\n' * 4)
    lengths = {"max_prompt_length": 64, "max_completion_length": 8}
    text = text_for(
        llama_folder,
        (data_files[0], tmp_path / "eval.jsonl"),
        tmp_path / "run",
        training={"keep": "best", "gradient_accumulation_steps": 1, **lengths},
    )
    with pytest.raises(UserInputError, match=r"training\.keep: best needs held-out rows"):
        check_config(parse_config(text, "c"))


def test_an_interrupted_run_goes_on_by_itself(
    finished: Any, tmp_path: Path, llama_folder: Path, data_files: Any
) -> None:
    folder, _, _, result = finished
    text = text_for(llama_folder, data_files, tmp_path / "r")
    config = parse_config(text, "c")

    class Killed(Exception):
        pass

    def kill(line: dict[str, Any], updates: int) -> None:
        if line["step"] == 2:
            raise Killed("in update 2")

    with pytest.raises(Killed, match="in update 2"):
        run(config, text, watch=ProgressCallbacks(line=kill))
    steps: list[int] = []
    assert (
        run(
            config,
            text,
            watch=ProgressCallbacks(line=lambda line, updates: steps.append(line["step"])),
        )
        == result
    )
    assert steps == [2, 3]
    saved = "adapter/adapter_model.safetensors"
    assert (tmp_path / "r" / saved).read_bytes() == (folder.root / saved).read_bytes()


def test_another_config_or_data_is_refused_with_the_difference(
    finished: Any, llama_folder: Path, data_files: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, _, _, _ = finished
    config = load_config(folder.resolved_config)
    other = config.model_copy(
        update={"training": config.training.model_copy(update={"learning_rate": 0.5})}
    )
    sha256 = json.loads(folder.data_report.read_text())["sha256"]
    with pytest.raises(UserInputError) as caught:
        open_folder(folder, other, Inputs(sha256), "auto", allow_changed=False)
    assert [problem.where for problem in caught.value.problems] == [
        "training.learning_rate",
        str(folder),
    ]
    assert "was 0.01" in str(caught.value)
    assert "now 0.5" in str(caught.value)
    with pytest.raises(UserInputError, match="the data files changed"):
        open_folder(folder, config, Inputs("another"), "auto", allow_changed=False)
    with pytest.raises(UserInputError, match="the changes would have no effect"):
        open_folder(folder, other, Inputs(sha256), "auto", allow_changed=True)
    assert is_finished(folder, config.export)


def test_resume_never_moves_the_old_folder_aside(finished: Any, tmp_path: Path) -> None:
    _, config, _, _ = finished
    folder = RunDir(tmp_path / "old")
    write_text(folder.resolved_config, "a: 1\n")
    move_aside(folder)
    assert open_folder(folder, config, Inputs("x"), "never", allow_changed=False) is None
    assert (tmp_path / "old.1/config.resolved.yaml").read_text() == "a: 1\n"
    with pytest.raises(UserInputError, match="write auto, never or a folder in checkpoints/"):
        require_checkpoint(str(tmp_path / "nowhere"))


def test_before_is_asked_once_for_runs_that_share_model_and_rows(
    finished: Any, llama_folder: Path, data_files: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    calls: list[int] = []

    def count(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return collect_answers(*arguments, **named)

    monkeypatch.setattr("remote_trainer.pipeline.evaluate.collect_answers", count)
    text = text_for(llama_folder, data_files, tmp_path / "r", reward={"type": "inverse_loss"})
    result = run(parse_config(text, "c"), text)
    assert len(calls) == 1  # after training only
    assert result["before"]["accuracy_sampled"] == finished[3]["before"]["accuracy_sampled"]
    assert result["before"]["reward"] != finished[3]["before"]["reward"]


def test_a_run_without_held_out_rows_says_so(
    llama_folder: Path, data_files: tuple[Path, Path], tmp_path: Path, cache: Path
) -> None:
    data = {"train": str(data_files[0]), "eval": "none"}
    text = text_for(llama_folder, data_files, tmp_path / "r", data=data)
    result = run(parse_config(text, "c"), text)
    assert result["after"] is None
    assert result["verdict"]["text"] == "Not measured: no rows were held out (data.eval)."


def test_check_lists_config_data_and_model_problems_together(
    data_files: tuple[Path, Path], tmp_path: Path
) -> None:
    text = text_for(tmp_path / "no-model", (tmp_path / "no.jsonl", data_files[1]), tmp_path)
    settings = json.loads(text)
    settings["training"]["trl"] = {"beta": 1}
    with pytest.raises(UserInputError, match=r"no\.jsonl: no such file") as caught:
        check_config(parse_config(json.dumps(settings), "c"))
    assert [problem.where for problem in caught.value.problems] == [
        "training.trl.beta",
        str(tmp_path / "no.jsonl"),
        "model.name",
    ]
    with pytest.raises(UserInputError, match=r"data\.train: this key is missing"):
        check_config(parse_config("reward: {type: inverse_loss}", "c"))


def test_exports_that_cannot_be_written_are_refused_before_training(
    llama_folder: Path, data_files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    monkeypatch.setattr(needs, "memory_gb", lambda: 1e-6)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    export = {"formats": ["lora", "merged_16bit", "gguf"], "gguf_type": "q4_k_m"}
    text = text_for(llama_folder, data_files, tmp_path / "run", export=export)
    with pytest.raises(UserInputError) as refused:
        check_config(parse_config(text, "c"))
    told = [str(problem) for problem in refused.value.problems]
    forms = [line.split(":")[1].strip() for line in told]
    assert forms == ["merged_16bit", "merged_16bit", "gguf", "gguf", "gguf", "gguf"]
    assert all("export.formats" in line for line in told)
    assert "converter: install remote-trainer[gguf]" in told[2]
    assert "llama-quantize: install remote-trainer[gguf]" in told[3]
    assert all("GB are free" in told[place] for place in (0, 4))
    assert all("GB of memory" in told[place] for place in (1, 5))


def test_check_knows_prompt_lengths_and_batches(
    llama_folder: Path, data_files: tuple[Path, Path], tmp_path: Path
) -> None:
    config = parse_config(text_for(llama_folder, data_files, tmp_path), "c")
    plan = check_config(config)
    assert plan.report is not None
    assert plan.report["train"]["rows_kept"] == 12
    assert plan.notes == []
    assert batch_plan(config, 12) == {
        "prompts_per_update": 2,
        "completions_per_update": 8,
        "updates_per_epoch": 6,
        "updates": 3,
        "most_tokens_per_update": 8 * 70,
        "most_completion_tokens": 3 * 8 * 6,
        "trl": {
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_generations": 4,
            "num_iterations": 1,
            "max_steps": 3,
            "num_train_epochs": 1.0,
            "generation_batch_size": 8,
        },
    }


def test_score_judges_rows_as_training_would(
    llama_folder: Path, data_files: tuple[Path, Path], tmp_path: Path
) -> None:
    from remote_trainer.engines.transformers_backend import TransformersBackend
    from remote_trainer.records import LoadSettings
    from remote_trainer.rewards import create_reward_function

    config = parse_config(text_for(llama_folder, data_files, tmp_path), "c")
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": "What is 2 + 2?", "completion": "4 apples", "answer": "4", "id": 7},
        {"prompt": "What is 2 + 2?", "completion": "", "answer": "4"},
        {"prompt": "What is 2 + 2?", "completion": "4"},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen: list[tuple[int, int]] = []
    watch = ProgressCallbacks(progress=lambda done, total: seen.append((done, total)))
    assert score_file(config, source, target, watch) == 3
    assert seen[-1] == (3, 3)  # two rows ask for three sequences; the empty one asks for none
    scored = read_jsonl(target)
    assert [{k: v for k, v in row.items() if k in rows[0]} for row in scored] == rows
    backend = TransformersBackend.load(llama_folder, LoadSettings())
    reward = create_reward_function(
        backend.model, backend.prompt_tokenizer.tokenizer, config=config.reward
    )
    chat: Any = [{"role": "user", "content": "What is 2 + 2?"}]
    expected = reward(prompts=[chat], completions=["4 apples"], answer=["4"])
    assert scored[0]["reward"] == pytest.approx(expected[0])
    assert scored[0]["reward"] == pytest.approx(
        scored[0]["rewards"]["supervised"] + 0.1 * scored[0]["rewards"]["inverse_loss"]
    )
    assert scored[1]["rewards"] == {"supervised": 0.0, "inverse_loss": -10.0}
    assert scored[2]["reward"] is None
    assert scored[2]["rewards"]["supervised"] is None


def test_eval_of_a_bare_model(
    llama_folder: Path, data_files: tuple[Path, Path], tmp_path: Path
) -> None:
    overrides = ["evaluation.samples=2"]
    alone = evaluate_model(str(llama_folder), data_files[1], False, None, overrides)
    assert set(alone) == {"after"}
    assert alone["after"]["rows"] == 4
    assert alone["after"]["reward"] is None
    both = evaluate_model(str(llama_folder), data_files[1], False, str(llama_folder), overrides)
    assert both["after"] == both["before"] == alone["after"]
    assert both["verdict"]["word"] == "no measurable change"


def test_a_verdict_without_a_row_that_may_judge_says_why(
    llama_folder: Path, data_files: Any, cache: Path, tmp_path: Path
) -> None:
    """All four held-out rows chose the best adapter."""
    training = json.loads(text_for(llama_folder, data_files, tmp_path))["training"]
    text = text_for(
        llama_folder, data_files, tmp_path / "run",
        guard={"action": "warn"}, training={**training, "max_steps": 1, "keep": "best"},
    )  # fmt: skip
    result = run(parse_config(text, "c"), text)
    assert result["verdict"]["text"] == (
        "Not measured: of 4 held-out rows with a reference none is left for the verdict, because "
        "all of them chose the adapter; hold out more rows (data.eval)."
    )

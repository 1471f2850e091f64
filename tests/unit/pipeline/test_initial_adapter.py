"""Training goes on from an adapter: it is really on the model, and a wrong one is refused."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cli import command
from test_pipeline import cache, data_files, text_for

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.errors import UserInputError
from remote_trainer.pipeline.check import check_config
from remote_trainer.pipeline.evaluate import evaluate_model
from remote_trainer.pipeline.export import export_trained, read_proof
from remote_trainer.pipeline.initial_adapter import apply, find_start, with_start
from remote_trainer.pipeline.score import score_file
from remote_trainer.pipeline.train import run
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.records import LoadSettings, Sampling, ScoreRequest
from remote_trainer.run_dir import RunDir, read_jsonl

__all__ = ["cache", "data_files"]  # fixtures

LORA = {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def first(
    llama_folder: Path, data_files: Any, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunDir, dict[str, Any]]:
    """A finished run, and its evaluation."""
    output = tmp_path_factory.mktemp("runs") / "first"
    text = text_for(llama_folder, data_files, output, lora=LORA)
    return RunDir(output), run(parse_config(text, "c"), text)


def text_after(model: Path, files: Any, adapter: Path, output: Path, **changes: Any) -> str:
    """A config that says nothing of rank, alpha and layers."""
    settings = json.loads(text_for(model, files, output, **{"lora": {}, **changes}))
    settings["model"]["adapter"] = str(adapter)
    return json.dumps(settings)


@pytest.fixture(scope="module")
def second(
    llama_folder: Path, data_files: Any, first: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunDir, str, dict[str, Any]]:
    """A run that goes on from the first one."""
    output = tmp_path_factory.mktemp("runs") / "second"
    text = text_after(llama_folder, data_files, first[0].root, output)
    return RunDir(output), text, run(parse_config(text, "c"), text)


def with_adapter(model: Path, adapter: Path) -> TransformersBackend:
    backend = TransformersBackend.load(model, LoadSettings())
    backend.load_adapter(adapter)
    return backend


def requests(backend: TransformersBackend) -> list[ScoreRequest]:
    prompts = [
        backend.prompt_tokenizer.encode_prompt([{"role": "user", "content": text}])
        for text in ("What is 2 + 2?", "Name a fruit.")
    ]
    answers = backend.prompt_tokenizer.encode("An apple is a fruit.")
    return [ScoreRequest.of(prompt, answers) for prompt in prompts]


def as_training_starts(config: RunConfig, model: Path) -> TransformersBackend:
    start = find_start(config, model)
    backend = TransformersBackend.load(model, LoadSettings())
    apply(backend, with_start(config, start), start)
    return backend


@pytest.mark.parametrize("part", ["", "adapter", "checkpoints/step-000003"])
def test_training_starts_as_the_policy_that_was_left(
    part: str, first: Any, llama_folder: Path, data_files: Any, tmp_path: Path
) -> None:
    """A run, its PEFT folder and its last checkpoint are the same adapter."""
    text = text_after(llama_folder, data_files, first[0].root / part, tmp_path / "run")
    backend = as_training_starts(parse_config(text, "c"), llama_folder)
    source = with_adapter(llama_folder, first[0].adapter)
    asked = requests(backend)
    assert backend.score(asked) == source.score(asked)
    base = TransformersBackend.load(llama_folder, LoadSettings()).score(asked)
    moved = [abs(sum(a) - sum(b)) for a, b in zip(base, source.score(asked), strict=True)]
    assert min(moved) > 0.01  # the adapter does something
    trained = [name for name, p in backend.model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * 2
    assert all(".lora_" in name for name in trained)


def test_before_is_the_model_with_the_given_adapter(first: Any, second: Any) -> None:
    assert second[2]["before"] == first[1]["after"]
    assert second[2]["before"] != first[1]["before"]
    assert second[2]["after"] != second[2]["before"]


def test_the_first_completions_are_the_old_policy_s_and_kl_is_to_the_base(
    first: Any, second: Any, llama_folder: Path
) -> None:
    source = with_adapter(llama_folder, first[0].adapter)
    rows = read_jsonl(second[0].completions_file(1))
    prompts = [source.prompt_tokenizer.encode_prompt(row["prompt"]) for row in rows]
    update = Sampling(6, temperature=1.0, seed=0, dtype="auto")
    drawn = [generation.ids for generation in source.generate(prompts, update)]
    assert [source.prompt_tokenizer.decode(ids) for ids in drawn] == [
        row["completion"] for row in rows
    ]
    own = source.score([ScoreRequest.of(p, c) for p, c in zip(prompts, drawn, strict=True)])
    base = TransformersBackend.load(llama_folder, LoadSettings())
    other = base.score([ScoreRequest.of(p, c) for p, c in zip(prompts, drawn, strict=True)])
    # TRL's estimate per token: exp(d) - d - 1, d = reference - policy.
    tokens = [
        math.exp(b - a) - (b - a) - 1
        for x, y in zip(own, other, strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    kl = read_jsonl(second[0].metrics)[0]["kl"]
    assert kl == pytest.approx(sum(tokens) / len(tokens), rel=1e-3)
    assert kl > 1e-3
    assert read_jsonl(first[0].metrics)[0]["kl"] == pytest.approx(0, abs=1e-6)


def test_the_adapter_was_trained_further_and_is_what_is_exported(
    first: Any, second: Any, llama_folder: Path
) -> None:
    old, new = (load_file(folder.adapter / WEIGHTS) for folder in (first[0], second[0]))
    assert old.keys() == new.keys()
    assert all(not (old[name] == new[name]).all() for name in old)
    assert read_proof(second[0].adapter)["verdict"] == "PASS"
    folder, proof = export_trained(second[0].root, "merged_16bit")
    assert proof["verdict"] == "PASS"
    merged = load_file(folder / "model.safetensors")
    base = load_file(llama_folder / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    a, b = (new[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
    wanted = (base[f"{name}.weight"] + 8 / 4 * b @ a).bfloat16()
    assert (merged[f"{name}.weight"] - wanted).abs().max() < 0.01
    card = (folder / "README.md").read_text()
    assert f"continued from the adapter `{first[0].root.name}`" in card


def test_the_folder_says_what_was_in_force(first: Any, second: Any) -> None:
    resolved = parse_config(second[0].resolved_config.read_text(), "r")
    assert (resolved.lora.r, resolved.lora.alpha) == (4, 8)
    assert resolved.lora.target_modules == ("q_proj", "v_proj")
    assert resolved.model.adapter == str(first[0].root)
    report = json.loads(second[0].data_report.read_text())
    assert len(report["adapter_sha256"]) == 64


def test_an_interrupted_run_ends_with_the_same_bits(
    second: Any, first: Any, llama_folder: Path, data_files: Any, tmp_path: Path
) -> None:
    text = text_after(llama_folder, data_files, first[0].root, tmp_path / "run")
    config = parse_config(text, "c")

    class Killed(Exception):
        pass

    def kill(line: dict[str, Any], updates: int) -> None:
        if line["step"] == 2:
            raise Killed("in update 2")

    with pytest.raises(Killed, match="in update 2"):
        run(config, text, watch=ProgressCallbacks(line=kill))
    assert run(config, text) == second[2]
    saved = f"adapter/{WEIGHTS}"
    assert (tmp_path / "run" / saved).read_bytes() == (second[0].root / saved).read_bytes()
    RunDir(tmp_path / "run").eval.unlink()  # measured again on the adapter that was trained
    assert run(config, text) == second[2]


@pytest.fixture
def weights_of_first(first: Any) -> Iterator[Path]:
    """The first run's adapter, to be changed; it is put back afterwards."""
    files = {file: file.read_bytes() for file in first[0].adapter.glob("adapter_*")}
    yield first[0].adapter
    for file, content in files.items():
        file.write_bytes(content)


def test_other_weights_under_the_same_name_are_refused(second: Any, weights_of_first: Path) -> None:
    folder, text, result = second
    config = parse_config(text, "c")
    assert run(config, text) == result
    change_tensors(weights_of_first, lambda t: {name: 1.5 * tensor for name, tensor in t.items()})
    with pytest.raises(UserInputError) as refused:
        run(config, text)
    assert [problem.where for problem in refused.value.problems] == ["model.adapter", str(folder)]
    assert "weights changed after" in str(refused.value)
    assert run(config, text, allow_changed=True) == result
    change_settings(weights_of_first, lora_alpha=16)
    with pytest.raises(UserInputError, match=r"lora\.alpha: was 8 in .*, now 16"):
        run(config, text)


def test_score_and_eval_judge_by_the_model_with_the_adapter(
    first: Any, llama_folder: Path, data_files: Any, tmp_path: Path
) -> None:
    reward = {"type": "inverse_loss", "gate": False, "scored_by": "policy"}
    text = text_after(llama_folder, data_files, first[0].root, tmp_path, reward=reward)
    (tmp_path / "in.jsonl").write_text('{"prompt": "What is 2 + 2?", "completion": "apple"}\n')
    score_file(parse_config(text, "c"), tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    source = with_adapter(llama_folder, first[0].adapter)
    prompt = source.prompt_tokenizer.encode_prompt([{"role": "user", "content": "What is 2 + 2?"}])
    (logprobs,) = source.score([ScoreRequest.of(prompt, source.prompt_tokenizer.encode("apple"))])
    (row,) = read_jsonl(tmp_path / "out.jsonl")
    assert row["reward"] == pytest.approx(sum(logprobs) / len(logprobs), abs=1e-5)
    asked = ["evaluation.samples=2", f"model.adapter={first[0].root}"]
    found = evaluate_model(str(llama_folder), data_files[1], False, None, asked)
    assert found["after"]["answer_logprob"] == first[1]["after"]["answer_logprob"]


# What is refused, before a model is loaded.


def change_settings(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_tensors(folder: Path, change: Any) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors), folder / WEIGHTS)


def without_layer_1(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if "layers.1" not in name}


def with_layer_7(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("layers.1", "layers.7"): t for name, t in tensors.items()}


def wider(tensors: dict[str, Any]) -> dict[str, Any]:
    return {
        name: torch.cat([t, t], dim=1) if "lora_A" in name else t for name, t in tensors.items()
    }


def one_side_only(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if "lora_A" in name}


def for_the_head(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("layers.1.self_attn.q_proj", "lm_head"): t for name, t in tensors.items()}


def to_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10])


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (lambda f: shutil.rmtree(f), r"no folder .*; write a PEFT folder"),
    "empty": (lambda f: (f / "adapter_config.json").unlink(), "has no adapter_config.json"),
    "no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "cannot be read as JSON"),
    "a list": (
        lambda f: (f / "adapter_config.json").write_text("[]"),
        "holds a list, not an object",
    ),
    "other kind": (lambda f: change_settings(f, peft_type="IA3"), "peft_type is 'IA3'; only LORA"),
    "DoRA": (lambda f: change_settings(f, use_dora=True), "use_dora is True; only plain LoRA"),
    "PiSSA": (lambda f: change_settings(f, init_lora_weights="pissa"), "is 'pissa'; only plain"),
    "bias": (lambda f: change_settings(f, bias="all"), "bias is 'all'; only plain LoRA"),
    "no rank": (lambda f: change_settings(f, r=None), "its r is None; it must be an integer"),
    "half alpha": (lambda f: change_settings(f, lora_alpha=0.5), "lora_alpha is 0.5; it must"),
    "endless alpha": (lambda f: change_settings(f, lora_alpha=math.inf), "lora_alpha is inf; it"),
    "a rank of 400 digits": (lambda f: change_settings(f, r=10**400), "its r is 1000000"),
    "nested": (
        lambda f: (f / "adapter_config.json").write_text("[" * 100_000),
        "it is nested too deeply",
    ),
    "other rank": (lambda f: change_settings(f, r=8), "layers without two matrices of rank 8"),
    "pickle": (to_pickle, r"has no adapter_model.safetensors \(adapter_model.bin can run"),
    "cut": (cut, "is not a complete safetensors file"),
    "a layer lost": (
        lambda f: change_tensors(f, without_layer_1),
        "lacks layers of .* 1 mo",
    ),
    "a layer more": (lambda f: change_tensors(f, with_layer_7), "adapts layers that .*layers.7"),
    "other size": (lambda f: change_tensors(f, wider), "was trained on layers of other sizes"),
    "half": (lambda f: change_tensors(f, one_side_only), "without two matrices"),
    "head": (lambda f: change_tensors(f, for_the_head), r"a head \(log-probabilities"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_adapter_that_cannot_be_trained_is_refused(
    fault: str, first: Any, llama_folder: Path, data_files: Any, tmp_path: Path
) -> None:
    adapter = shutil.copytree(first[0].adapter, tmp_path / "adapter")
    text = text_after(llama_folder, data_files, adapter, tmp_path / "run")
    assert check_config(parse_config(text, "c")).start is not None
    FAULTS[fault][0](adapter)
    with pytest.raises(UserInputError, match=FAULTS[fault][1]) as refused:
        check_config(parse_config(text, "c"))
    fields = {problem.where for problem in refused.value.problems}
    assert fields == ({str(adapter / WEIGHTS)} if fault == "cut" else {"model.adapter"})
    with pytest.raises(UserInputError, match=FAULTS[fault][1]):
        run(parse_config(text, "c"), text)
    assert not (tmp_path / "run").exists()


def test_lora_settings_are_the_adapter_s_or_left_out(
    first: Any, llama_folder: Path, data_files: Any, tmp_path: Path
) -> None:
    def problems(lora: dict[str, Any]) -> list[str]:
        text = text_after(llama_folder, data_files, first[0].root, tmp_path / "run", lora=lora)
        try:
            check_config(parse_config(text, "c"))
        except UserInputError as error:
            return [str(problem) for problem in error.problems]
        return []

    assert problems(LORA) == []
    assert problems({"r": 4, "target_modules": ["v_proj", "q_proj"], "dropout": 0.1}) == []
    told = problems({"r": 16, "alpha": 16, "target_modules": ["q_proj"]})
    assert [line.split(":")[0] for line in told] == ["lora.r", "lora.alpha", "lora.target_modules"]
    assert "found 16, but the adapter of model.adapter has 4; omit the key" in told[0]
    assert "found ['q_proj'], but the adapter of model.adapter has ['q_proj', 'v_proj']" in told[2]


def test_runs_and_checkpoints_that_cannot_be_gone_on_from(
    first: Any, llama_folder: Path, data_files: Any, tmp_path: Path
) -> None:
    def told(adapter: Path, output: Path) -> str:
        text = text_after(llama_folder, data_files, adapter, output)
        with pytest.raises(UserInputError) as refused:
            check_config(parse_config(text, "c"))
        return str(refused.value)

    copy = RunDir(shutil.copytree(first[0].root, tmp_path / "copy"))
    shutil.rmtree(copy.adapter)
    assert "is not finished, so it has no adapter yet" in told(copy.root, tmp_path / "run")
    last = copy.complete_checkpoints()[-1]
    assert told(last, copy.root).startswith("output_dir: ")
    save_file({"x": load_file(last / "rng.safetensors")["torch"]}, last / "adapter.safetensors")
    assert "tensors that are not LoRA matrices" in told(last, tmp_path / "run")
    shutil.copy(first[0].complete_checkpoints()[0] / "adapter.safetensors", last)
    assert "changed since it was written" in told(last, tmp_path / "run")
    lost = shutil.copytree(last, tmp_path / "lost")
    assert "outside its run" in told(lost, tmp_path / "run")


def test_another_name_of_the_base_is_told_and_nothing_more(
    first: Any, llama_folder: Path, data_files: Any, tmp_path: Path
) -> None:
    adapter = shutil.copytree(first[0].adapter, tmp_path / "adapter")
    text = text_after(llama_folder, data_files, adapter, tmp_path / "run")
    assert check_config(parse_config(text, "c")).notes == []
    change_settings(adapter, base_model_name_or_path="owner/other")
    (note,) = check_config(parse_config(text, "c")).notes
    assert "was trained on owner/other, but model.name is" in note


def test_a_model_that_names_layers_otherwise_is_noticed_in_memory(
    first: Any, llama_folder: Path, data_files: Any, tmp_path: Path
) -> None:
    adapter = shutil.copytree(first[0].adapter, tmp_path / "adapter")
    change_tensors(adapter, without_layer_1)
    text = text_after(llama_folder, data_files, adapter, tmp_path / "run")
    start = find_start(parse_config(text, "c"), None)
    backend = TransformersBackend.load(llama_folder, LoadSettings())
    config = with_start(parse_config(text, "c"), start)
    with pytest.raises(UserInputError, match="does not fit the adapter of the model: 4 of its"):
        apply(backend, config, start)


def test_the_command_lists_all_of_it_with_exit_2_and_without_torch(
    weights_of_first: Path, llama_folder: Path, data_files: Any, tmp_path: Path
) -> None:
    change_settings(weights_of_first, use_dora=True, bias="all")
    text = text_after(llama_folder, data_files, weights_of_first, tmp_path / "run")
    (tmp_path / "c.yaml").write_text(text)
    done = command("check", tmp_path / "c.yaml", "--set", "training.trl={beta: 1}", "--json")
    assert (done.returncode, done.stderr) == (2, "loaded:\n")
    fields = [problem["where"] for problem in json.loads(done.stdout)["problems"]]
    assert fields == ["training.trl.beta", "model.adapter", "model.adapter"]

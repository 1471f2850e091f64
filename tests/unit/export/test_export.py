"""Exports of the tiny model, and wrong ones: what the proof must catch."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_trainer import rows_for

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.errors import ExportError, UserInputError
from remote_trainer.export import merged_16bit, needs
from remote_trainer.export.proof import (
    PRECISIONS,
    Expected,
    Precision,
    Question,
    Reading,
    judge,
)
from remote_trainer.export.registry import FORMATS
from remote_trainer.export.shards import shard_progress
from remote_trainer.export.source import Source
from remote_trainer.export.writing import OnStage
from remote_trainer.export_formats import PROOF_KEYS
from remote_trainer.llama_cpp import convert as gguf
from remote_trainer.pipeline import export as pipeline
from remote_trainer.pipeline.export import (
    add_gguf_adapter,
    expected_of,
    export_format,
    failed_folder,
    is_proven,
)
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.records import AdapterSettings, LoadSettings

TARGETS = ("q_proj", "v_proj", "down_proj")
CONFIG: RunConfig = parse_config(
    json.dumps({"data": {"train": "-"}, "evaluation": {"max_completion_length": 8}}), "c"
)
Trained = tuple[Source, Expected]


def write_adapter(
    model: Path, folder: Path, scale: float, targets: tuple[str, ...] = TARGETS
) -> TransformersBackend:
    """A random adapter, as if trained; ``scale`` is how far it moves the model."""
    backend = TransformersBackend.load(model, LoadSettings())
    backend.add_adapter(AdapterSettings(4, 8, 0.0, targets, seed=0))
    torch.manual_seed(1)
    for name, parameter in backend.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    backend.save_adapter(folder)
    backend.prompt_tokenizer.tokenizer.save_pretrained(folder)
    return backend


@pytest.fixture(scope="module")
def trained(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    backend = write_adapter(llama_folder, folder, 0.3)
    expected = expected_of(backend, rows_for(backend, 16), CONFIG)
    return Source(llama_folder, folder), expected


# The verdict, by hand.


def readings(
    export: float, policy: float, base: float, base_there: float
) -> tuple[Expected, Reading, list[list[float]]]:
    """Two tokens each; the same log-prob everywhere."""
    question = Question("q", (1,), (5, 6), (policy, policy), (base, base))
    reading = Reading([[export] * 2], [[5, 6]], [[5, 6]], [[1]], [2])
    return Expected([question], (2,), {}), reading, [[base_there] * 2]


@pytest.mark.parametrize(
    ("export", "policy", "base", "base_there", "verdict", "slope"),
    [
        (-1.0, -1.0, -2.0, -2.0, "PASS", 1.0),
        (-1.01, -1.0, -2.0, -2.02, "PASS", 1.01),  # the format moves both by about as much
        (-2.0, -1.0, -2.0, -2.0, "FAIL", 0.0),  # the base
        (0.0, -1.0, -2.0, -2.0, "FAIL", 2.0),  # the adapter twice
        (-1.5, -1.0, -2.0, -2.0, "FAIL", 0.5),  # half of it
        (-2.0, -2.0, -2.0, -2.0, "INCONCLUSIVE", None),  # nothing was trained
        (-2.001, -2.001, -2.0, -2.02, "INCONCLUSIVE", -19.0),  # the format rounds more than that
    ],
)
def test_verdicts(
    export: float, policy: float, base: float, base_there: float, verdict: str, slope: float | None
) -> None:
    found = judge(*readings(export, policy, base, base_there), Precision(0.02, (0.8, 1.2)))
    assert found["verdict"] == verdict
    assert found["slope"] == (None if slope is None else pytest.approx(slope))


def test_other_eos_or_prompts_fail_whatever_the_logprobs() -> None:
    expected, reading, base = readings(-1.0, -1.0, -2.0, -2.0)
    for wrong, check in (({"eos_ids": [3]}, "end of text"), ({"prompt_ids": [[1, 1]]}, "prompts")):
        changed = Reading(**{**vars(reading), **wrong})
        found = judge(expected, changed, base, PRECISIONS["float32"])
        assert found["verdict"] == "FAIL"
        assert [name for name, right in found["checks"].items() if not right] == [check]


# Real folders, read by another process.


def test_a_merged_model_is_proven(trained: Trained, tmp_path: Path) -> None:
    source, expected = trained
    told: list[str] = []
    target = tmp_path / "merged_16bit"
    proof = export_format(
        "merged_16bit", source, target, expected, ProgressCallbacks(stage=told.append)
    )
    assert told == [
        f"writing merged_16bit to {target}",
        "merging the adapter into its base",
        "verifying the export in another process",
    ]
    assert proof["verdict"] == "PASS"
    assert set(PROOF_KEYS) - {"ignored_window", "reason"} == set(pipeline.read_proof(target))
    assert proof["questions"] == 16
    assert 0.95 < proof["slope"] < 1.05
    assert proof["policy_base_gap_rms"] > 0.1
    assert proof["likeliest_agree"] > 0.9
    weights = load_file(tmp_path / "merged_16bit" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert not list(tmp_path.glob(".*"))  # nothing is left of the way there


def test_shards_are_counted_while_they_are_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged_16bit, "MAX_SHARD", "20KB")
    source, counts = trained[0], list[tuple[int, int]]()
    with shard_progress(lambda done, total: counts.append((done, total))):
        merged_16bit.merge(source.base, source.adapter, tmp_path)
    shards = len(list(tmp_path.glob("*.safetensors")))
    assert shards > 2
    assert counts == [(done, shards) for done in range(shards + 1)]
    merged_16bit.merge(source.base, source.adapter, tmp_path)
    assert len(counts) == shards + 1


def test_a_quantised_gguf_is_converted_and_then_quantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(gguf, "_quantizer", lambda: Path("llama-quantize"))
    monkeypatch.setattr(gguf, "_run_script", lambda script, model, target, kind: target.touch())
    monkeypatch.setattr(gguf, "_run", lambda command, doing: steps.append(f"({doing})"))
    gguf.convert(tmp_path, tmp_path / "model.gguf", "q4_k_m", steps.append)
    assert steps == ["converting to f16", "quantising to q4_k_m", "(quantising to q4_k_m)"]


def test_merging_is_base_plus_scaled_product(trained: Trained, tmp_path: Path) -> None:
    source, _ = trained
    merged_16bit.merge(source.base, source.adapter, tmp_path, torch.float32)
    merged, base = (load_file(f / "model.safetensors") for f in (tmp_path, source.base))
    adapter = load_file(source.adapter / "adapter_model.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
    wanted = base[f"{name}.weight"] + 8 / 4 * b @ a
    torch.testing.assert_close(merged[f"{name}.weight"], wanted, atol=1e-6, rtol=0)
    assert torch.equal(merged["model.norm.weight"], base["model.norm.weight"])


def test_bfloat16_keeps_the_mean_of_what_training_moved() -> None:
    """Moves of a quarter of a step: the nearest value is the base's, and nothing would be left."""
    step = 2.0**-7
    base = torch.tensor([1.0, -1.0]).repeat(20_000)
    moved = base + torch.tensor([0.25, -0.25]).repeat(20_000) * step
    assert torch.equal(moved.to(torch.bfloat16).float(), base)
    found = merged_16bit.rounded(moved, torch.Generator().manual_seed(1)).float()
    assert set((found - base).abs().tolist()) == {0.0, step}
    for sign in (1, -1):
        share = ((found - base)[base == sign] * sign / step).mean()
        assert share == pytest.approx(0.25, abs=0.01)  # three standard errors
    again = merged_16bit.rounded(found, torch.Generator().manual_seed(2))
    assert torch.equal(again.float(), found)  # what bfloat16 holds stays


def sabotage_base(source: Source, folder: Path, on_stage: OnStage) -> None:
    shutil.copytree(source.base, folder, dirs_exist_ok=True)


def sabotage_twice(source: Source, folder: Path, on_stage: OnStage) -> None:
    scratch = folder.parent / "twice"
    shutil.copytree(source.adapter, scratch)
    config = json.loads((scratch / "adapter_config.json").read_text())
    config["lora_alpha"] *= 2
    (scratch / "adapter_config.json").write_text(json.dumps(config))
    merged_16bit.merge(source.base, scratch, folder)


def merge_and(source: Source, folder: Path) -> Path:
    merged_16bit.merge(source.base, source.adapter, folder)
    return folder


def sabotage_eos(source: Source, folder: Path, on_stage: OnStage) -> None:
    merge_and(source, folder)
    for name, key in (("generation_config.json", "eos_token_id"), ("config.json", "eos_token_id")):
        settings = json.loads((folder / name).read_text())
        settings[key] = 7
        (folder / name).write_text(json.dumps(settings))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["eos_token"] = "<s>"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def sabotage_template(source: Source, folder: Path, on_stage: OnStage) -> None:
    (merge_and(source, folder) / "chat_template.jinja").unlink()


def sabotage_file(source: Source, folder: Path, on_stage: OnStage) -> None:
    weights = merge_and(source, folder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def sabotage_one_layer(source: Source, folder: Path, on_stage: OnStage) -> None:
    weights = merge_and(source, folder) / "model.safetensors"
    tensors, base = load_file(weights), load_file(source.base / "model.safetensors")
    for name in tensors:
        if "layers.0" in name:
            tensors[name] = base[name].to(torch.bfloat16)
    save_file(tensors, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("sabotage", "check"),
    [
        (sabotage_base, "slope"),
        (sabotage_twice, "slope"),
        (sabotage_one_layer, "log-probs"),
        (sabotage_eos, "end of text"),
        (sabotage_template, "loads"),
        (sabotage_file, "loads"),
    ],
)
def test_a_wrong_export_is_caught_and_loses_its_name(
    sabotage: Any,
    check: str,
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, expected = trained
    broken = replace(FORMATS["merged_16bit"], write=sabotage)
    monkeypatch.setitem(FORMATS, "merged_16bit", broken)
    target = tmp_path / "merged_16bit"
    proof = export_format("merged_16bit", source, target, expected)
    assert proof["verdict"] == "FAIL"
    assert proof["checks"][check] is False
    assert not target.exists()
    assert failed_folder(target).exists()
    assert proof["format"] in pipeline.why_failed(proof)


@pytest.mark.parametrize(
    ("slope", "form", "told"),
    [(0.47, "merged_4bit", True), (0.02, "merged_4bit", False), (0.47, "merged_16bit", False)],
)
def test_four_bits_that_took_too_much_are_told_from_a_missing_adapter(
    slope: float, form: str, told: bool
) -> None:
    proof = {
        "format": form,
        "slope": slope,
        "distance_mean": 0.5,
        "distance_limit": 1.2,
        "checks": {"log-probs": True, "prompts": True, "slope": False},
    }
    reason = pipeline.why_failed(proof)
    assert (
        f"failed checks: slope (slope {slope}, distance 0.5 nats per token, at most 1.2 allowed)"
        in reason
    )
    assert ("the training effect that remains" in reason) == told


def test_a_disk_too_small_is_refused_before_anything_is_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, expected = trained
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(ExportError, match=r"gguf needs .* GB on the disk"):
        export_format("gguf", source, tmp_path / "gguf", expected)
    assert not (tmp_path / "gguf").exists()


def test_a_machine_too_small_is_refused_before_anything_is_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, expected = trained
    numbers = sum(
        weight.numel() for weight in load_file(source.base / "model.safetensors").values()
    )
    for bytes_here, refused in ((2 * numbers - 1, True), (2 * numbers, False)):
        monkeypatch.setattr(needs, "memory_gb", lambda held=bytes_here: held / 1e9)
        told = list(needs.missing_resources("merged_16bit", source.base, tmp_path))
        assert bool(told) is refused
        assert list(needs.missing_resources("lora", source.base, tmp_path)) == []
    monkeypatch.setattr(needs, "memory_gb", lambda: 1e-6)
    with pytest.raises(ExportError, match=r"verifying merged_4bit needs up to .* GB of memory"):
        export_format("merged_4bit", source, tmp_path / "merged_4bit", expected)
    assert list(tmp_path.iterdir()) == []


def test_a_toy_tokenizer_gets_an_explanation(trained: Trained, tmp_path: Path) -> None:
    source, expected = trained
    assert gguf.missing_parts("f16") == []  # the extra gguf is part of the set-up
    with pytest.raises(ExportError, match=r"llama\.cpp does not support this tokenizer"):
        export_format("gguf", source, tmp_path / "gguf", expected)
    assert list(tmp_path.iterdir()) == []


# The adapter alone, for llama.cpp.


@pytest.fixture
def peft_folder(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the adapter's folder, to be added to."""
    folder: Path = shutil.copytree(trained[0].adapter, tmp_path / "adapter")
    return folder


@pytest.mark.parametrize("gguf_type", ["f32", "q8_0"])
def test_an_adapter_for_llama_cpp_is_proven_beside_its_base(
    gguf_type: str, trained: Trained, peft_folder: Path, toy_gguf: Path
) -> None:
    source, expected = replace(trained[0], gguf_type=gguf_type), trained[1]
    before = {file.name: file.read_bytes() for file in peft_folder.iterdir()}
    told: list[str] = []
    proof = add_gguf_adapter(source, peft_folder, expected, ProgressCallbacks(stage=told.append))
    assert told == [
        f"writing {peft_folder}/adapter-{gguf_type}.gguf",
        f"converting the adapter to {gguf_type}",
        "converting the base model, for verifying the adapter:",
        "converting to f16",
        "verifying the export in another process",
    ]
    assert proof["verdict"] == "PASS"
    assert 0.95 < proof["slope"] < 1.05
    assert proof["policy_base_gap_rms"] > 0.1
    written = {f"adapter-{gguf_type}.gguf", f"adapter-{gguf_type}.proof.json"}
    assert {file.name for file in peft_folder.iterdir()} == set(before) | written
    assert all((peft_folder / name).read_bytes() == content for name, content in before.items())
    assert [folder.name for folder in peft_folder.parent.iterdir()] == ["adapter"]
    made = (peft_folder / f"adapter-{gguf_type}.gguf").stat().st_mtime_ns
    assert add_gguf_adapter(source, peft_folder, expected) == proof
    assert (peft_folder / f"adapter-{gguf_type}.gguf").stat().st_mtime_ns == made
    if gguf_type == "f32":
        assert_same_matrices(peft_folder)


def assert_same_matrices(folder: Path) -> None:
    """The file holds alpha and, where llama.cpp permutes nothing, the tensors as they are."""
    from gguf import GGUFReader

    reader = GGUFReader(folder / "adapter-f32.gguf")
    assert reader.fields["adapter.lora.alpha"].contents() == 8
    tensors = {tensor.name: torch.tensor(tensor.data.copy()) for tensor in reader.tensors}
    adapter = load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == len(adapter) == 2 * len(TARGETS) * 2
    for x in "AB":
        name = f"base_model.model.model.layers.1.mlp.down_proj.lora_{x}.weight"
        assert torch.equal(tensors[f"blk.1.ffn_down.weight.lora_{x.lower()}"], adapter[name])


def test_a_wrong_adapter_for_llama_cpp_never_gets_its_name(
    trained: Trained, peft_folder: Path, toy_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp reads alpha from the file: an adapter of twice the strength."""
    source, expected = replace(trained[0], gguf_type="f16", adapter=peft_folder), trained[1]
    settings = json.loads((peft_folder / "adapter_config.json").read_text())
    (peft_folder / "adapter_config.json").write_text(
        json.dumps({**settings, "lora_alpha": 2 * settings["lora_alpha"]})
    )
    proof = add_gguf_adapter(source, peft_folder, expected)
    assert (proof["verdict"], proof["checks"]["slope"]) == ("FAIL", False)
    assert "lora as GGUF does not match the trained model" in pipeline.why_failed(proof)
    assert list(peft_folder.glob("*.gguf")) == []
    assert list(peft_folder.glob("*proof.json")) == []
    assert (failed_folder(peft_folder) / "adapter-f16.gguf").exists()


@pytest.mark.parametrize(
    ("form", "gguf_type", "message"),
    [
        ("lora", "q4_k_m", r"--gguf-type: found 'q4_k_m'; write f32, f16, bf16, q8_0 for an adapt"),
        ("gguf", "q9", r"--gguf-type: found 'q9'; write f32, .*q6_k$"),
        ("merged_16bit", "f16", r"--gguf-type: merged_16bit is not a GGUF; omit --gguf-type"),
        ("ggml", None, r"--format: found 'ggml'; write lora, merged_16bit, merged_4bit, gguf$"),
        ("lora_gguf", None, r"--format: found 'lora_gguf'"),
    ],
)
def test_formats_and_types_that_do_not_exist_are_refused_at_once(
    form: str, gguf_type: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserInputError, match=message):
        pipeline.export_trained(tmp_path, form, gguf_type)


def test_gguf_files_of_several_types_live_together(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in writes the files: llama.cpp knows no toy tokenizer."""
    source, expected = trained
    verdicts = iter(["PASS", "PASS", "FAIL"])

    def write(source: Source, folder: Path, on_stage: OnStage) -> None:
        (folder / f"model-{source.gguf_type}.gguf").write_text(source.gguf_type)

    def prove(source: Source, folder: Path, expected: Expected, on_stage: OnStage) -> Any:
        return {"verdict": next(verdicts), "type": source.gguf_type}

    monkeypatch.setitem(FORMATS, "gguf", replace(FORMATS["gguf"], write=write, prove=prove))
    monkeypatch.setattr(pipeline, "missing_parts", lambda form, gguf_type: [])
    folder = tmp_path / "gguf"
    for gguf_type in ("q8_0", "f16", "q8_0"):
        proof = export_format("gguf", replace(source, gguf_type=gguf_type), folder, expected)
        assert proof["type"] == gguf_type
    assert (
        export_format("gguf", replace(source, gguf_type="q4_0"), folder, expected)["type"] == "q4_0"
    )
    assert {f.name for f in folder.glob("*.gguf")} == {"model-q8_0.gguf", "model-f16.gguf"}
    assert (folder / "model-q8_0.gguf").read_text() == "q8_0"
    assert {f.name for f in failed_folder(folder).glob("*.gguf")} == {"model-q4_0.gguf"}


def test_an_export_that_was_killed_is_made_again(trained: Trained, tmp_path: Path) -> None:
    source, expected = trained
    target = tmp_path / "merged_16bit"
    half = tmp_path / ".merged_16bit.0123abcd.partial"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half a file")
    assert not is_proven(target)
    assert export_format("merged_16bit", source, target, expected)["verdict"] == "PASS"
    assert not half.exists()
    before = (target / "model.safetensors").stat().st_mtime_ns
    export_format("merged_16bit", source, target, expected)
    assert (target / "model.safetensors").stat().st_mtime_ns == before


def test_a_sentencepiece_model_goes_along(llama_folder: Path, tmp_path: Path) -> None:
    """transformers does not write it again, and some converters read nothing else."""
    from remote_trainer.export.tokenizer_files import write_tokenizer

    base, target = shutil.copytree(llama_folder, tmp_path / "base"), tmp_path / "target"
    (base / "tokenizer.model").write_bytes(b"pieces")
    write_tokenizer(llama_folder, base, target)
    assert (target / "tokenizer.model").read_bytes() == b"pieces"
    assert (target / "tokenizer.json").exists()
    write_tokenizer(llama_folder, llama_folder, tmp_path / "without")
    assert not (tmp_path / "without" / "tokenizer.model").exists()


def test_what_a_base_says_of_itself_is_kept_where_transformers_leaves_it_out(
    tmp_path: Path,
) -> None:
    from remote_trainer.export.merged_16bit import _keep_settings

    for name, settings in {
        "base": {"n_ctx": 64, "torch_dtype": "float32", "quantization_config": {}, "n_embd": 8},
        "merged": {"dtype": "bfloat16", "n_embd": 9},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(settings))
    _keep_settings(tmp_path / "base", tmp_path / "merged")
    kept = json.loads((tmp_path / "merged/config.json").read_text())
    assert kept == {"dtype": "bfloat16", "n_embd": 9, "n_ctx": 64}

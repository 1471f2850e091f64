"""The stand-ins of tests/fakes have no field, parameter or method that the real packages lack."""

import ast
from pathlib import Path

import pytest
from vendor import ROOT, Parameters, Vendor

FAKES = ROOT / "tests" / "fakes"
REAL = Vendor()
LLM = "vllm/entrypoints/llm.py"
RECORDS = [
    ("vllm/logprobs.py", "Logprob"),
    ("vllm/outputs.py", "CompletionOutput"),
    ("vllm/outputs.py", "RequestOutput.__init__"),
    ("vllm/sampling_params.py", "SamplingParams"),
    ("vllm/sampling_params.py", "StructuredOutputsParams"),
]
METHODS = ["generate", "sleep", "wake_up", "reset_prefix_cache"]


def ours(changes: dict[str, str] | None = None) -> Vendor:
    """The stand-ins, read as the packages are."""
    files = [str(path.relative_to(FAKES)) for path in FAKES.rglob("*.py")]
    texts = {file: (FAKES / file).read_text(encoding="utf-8") for file in files}
    return Vendor({**texts, **(changes or {})})


def differences(fake: Parameters, real: Parameters) -> list[str]:
    """What a caller could say to the one and not to the other."""
    found = [f"no {name} in the real one" for name in sorted(fake.names - real.names)]
    for place, name in enumerate(fake.positional):
        if name in real.positional and real.positional.index(name) != place:
            found.append(f"{name} stands at another place")
    found += [f"{name} wants its name" for name in fake.positional if name in real.keyword_only]
    return found


@pytest.mark.parametrize(("file", "name"), RECORDS)
def test_records_are_those_of_vllm(file: str, name: str) -> None:
    fake, real = (each.parameters(file, name) for each in (ours(), REAL))
    # Sampling settings and regexes are given by name alone, so their order is free.
    by_name = file == "vllm/sampling_params.py"
    found = [text for text in differences(fake, real) if not by_name or "place" not in text]
    assert found == []


def test_a_field_that_vllm_no_longer_has_is_noticed() -> None:
    renamed = REAL.changed("vllm/outputs.py", "cumulative_logprob", "total_logprob")
    fake = ours().parameters("vllm/outputs.py", "CompletionOutput")
    real = renamed.parameters("vllm/outputs.py", "CompletionOutput")
    assert differences(fake, real) == ["no cumulative_logprob in the real one"]
    moved = REAL.changed(
        "vllm/logprobs.py", "    logprob: float\n", "    at: int\n    logprob: float\n"
    )
    fake, real = (each.parameters("vllm/logprobs.py", "Logprob") for each in (ours(), moved))
    assert "logprob stands at another place" in differences(fake, real)


@pytest.mark.parametrize("method", METHODS)
def test_an_engine_is_asked_as_vllm_s(method: str) -> None:
    fake = ours().parameters("vllm/__init__.py", f"LLM.{method}")
    assert differences(fake, REAL.parameters(LLM, f"LLM.{method}")) == []


def test_every_public_method_of_the_engine_is_compared() -> None:
    engine = ours().find("vllm/__init__.py", "LLM")
    assert isinstance(engine, ast.ClassDef)
    names = [node.name for node in engine.body if isinstance(node, ast.FunctionDef)]
    assert sorted(name for name in names if not name.startswith("_")) == sorted(METHODS)


def test_vllm_says_whether_it_sleeps_where_the_stand_in_does() -> None:
    assert "enable_sleep_mode" in REAL.parameters("vllm/config/model.py", "ModelConfig").names
    assert "model_config" in REAL.parameters("vllm/config/vllm.py", "VllmConfig").names
    assert "self.vllm_config = vllm_config" in REAL.source(
        "vllm/v1/engine/llm_engine.py", "LLMEngine"
    )
    assert "self.llm_engine = " in REAL.source(LLM, "LLM.__init__")


def test_vllm_answers_with_the_sampled_ids_log_prob_where_zero_are_asked_for() -> None:
    # The engine is made with max_logprobs=0 by Unsloth; more than that many are refused.
    check = REAL.source("vllm/sampling_params.py", "_validate_logprobs")
    assert "if num_logprobs > max_logprobs" in check
    assert "always return the log probability of" in REAL.text("vllm/sampling_params.py")


def test_the_package_offers_what_the_stand_in_does() -> None:
    for name in ("LLM", "SamplingParams", "RequestOutput"):
        assert f'"{name}"' in REAL.text("vllm/__init__.py")


@pytest.mark.parametrize(
    "file",
    [
        "vllm/distributed/weight_transfer/packed_tensor.py",
        "vllm/distributed/weight_transfer/nccl_common.py",
        "vllm/utils/network_utils.py",
    ],
)
def test_what_trl_imports_is_there(file: str) -> None:
    defined = [n.name for n in ast.parse(ours().text(file)).body if isinstance(n, ast.FunctionDef)]
    assert defined
    for name in defined:
        REAL.find(file, name)


def test_every_file_of_the_stand_in_is_one_of_vllm() -> None:
    for path in (FAKES / "vllm").rglob("*.py"):
        assert REAL.text(str(path.relative_to(FAKES))) is not None


def test_unsloth_s_names_are_those_of_the_stand_in() -> None:
    text = ours().text("unsloth/__init__.py")
    tree = ast.parse(text)
    (patched,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PATCHED"
    ]
    assert f"critical_modules = {list(patched)}".replace("'", '"') in REAL.text(
        "unsloth/_gpu_init.py"
    )
    # Both take keywords alone; which ones is compared call by call in test_calls.py.
    for name in ("from_pretrained", "get_peft_model"):
        assert ours().parameters("unsloth/__init__.py", f"FastLanguageModel.{name}").any_keyword
    loading = REAL.parameters("unsloth_zoo/vllm_utils.py", "load_lora")
    assert differences(ours().parameters("unsloth/__init__.py", "load_lora"), loading) == []


def test_the_versions_are_the_pinned_ones() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for folder in FAKES.glob("*.dist-info"):
        name, version = folder.stem.split("-", 1)
        assert f"{name}=={version.removesuffix('.dist')}" in pins
        lines = (Path(folder) / "METADATA").read_text(encoding="utf-8").splitlines()
        assert f"Version: {version.removesuffix('.dist')}" in lines

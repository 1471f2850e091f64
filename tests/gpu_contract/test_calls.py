"""What we call in Unsloth, vLLM and PEFT is there and takes what we give it."""

import ast
from dataclasses import fields
from typing import Any

import pytest
from calls import Call, Definition, calls_of, our_source, problems
from vendor import Vendor

from remote_trainer.config import parse_config
from remote_trainer.engines.unsloth_backend import LORA_RANKS
from remote_trainer.engines.vllm_sampling import sampling_fields
from remote_trainer.records import Sampling
from remote_trainer.trainer.trl_settings import trl_settings

REAL = Vendor()
LOADER, LLAMA = "unsloth/models/loader.py", "unsloth/models/llama.py"
VLLM_UTILS = "unsloth_zoo/vllm_utils.py"
LLM = "vllm/entrypoints/llm.py"
SAMPLING_PARAMS = Definition("vllm/sampling_params.py", "SamplingParams")
FORWARD = (Definition(LLAMA, "_CausalLM_fast_forward", bound=True),)
DEFINITIONS = {
    "import_unsloth().FastLanguageModel.from_pretrained": (
        Definition(LOADER, "FastLanguageModel.from_pretrained"),
    ),
    "import_unsloth().FastLanguageModel.get_peft_model": (
        Definition(LLAMA, "FastLlamaModel.get_peft_model"),
    ),
    "self.model": FORWARD,
    "plain_logits": FORWARD,  # hands its keywords on
    "self.model.load_lora": (Definition(VLLM_UTILS, "load_lora", bound=True),),
    "self.model.save_pretrained": (
        Definition("peft/peft_model.py", "PeftModel.save_pretrained", bound=True),
    ),
    "engine.generate": (Definition(LLM, "LLM.generate", bound=True),),
    "engine.wake_up": (Definition(LLM, "LLM.wake_up", bound=True),),
    "engine.sleep": (Definition(LLM, "LLM.sleep", bound=True),),
    # Bound to the model by Unsloth; it defines them twice, for families it has kernels for or not.
    "model.for_inference": (
        Definition(LLAMA, "FastLlamaModel.for_inference", bound=True),
        Definition("unsloth/models/vision.py", "FastBaseModel.for_inference", bound=True),
    ),
    "model.for_training": (
        Definition(LLAMA, "FastLlamaModel.for_training", bound=True),
        Definition("unsloth/models/vision.py", "FastBaseModel.for_training", bound=True),
    ),
}
FILES = ("engines/unsloth_backend.py", "models/modes.py", "inference/padded_rows.py")
STOCK = {"self.model.modules", "model.modules", "model.train", "model.eval"}
"""torch's own, on whatever model."""


def into_vendors(file: str, source: str | None = None) -> list[Call]:
    """Calls on Unsloth's classes, its model, and its engine."""
    roots = ("import_unsloth().", "self.model.", "engine.", "model.for_")
    return [
        call
        for call in calls_of(source or our_source(file), file)
        if (call.callee in DEFINITIONS or call.callee.startswith(roots))
        and call.callee not in STOCK
    ]


@pytest.mark.parametrize("file", FILES)
def test_every_call_is_one_that_the_packages_take(file: str) -> None:
    calls = into_vendors(file)
    assert {call.callee for call in calls} <= set(DEFINITIONS), "no definition is named for a call"
    assert problems(calls, DEFINITIONS, REAL) == []


def test_every_definition_is_called() -> None:
    called = {call.callee for file in FILES for call in into_vendors(file)}
    assert called == set(DEFINITIONS)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (LOADER, "max_lora_rank", "lora_rank_limit", "from_pretrained has no max_lora_rank"),
        (LOADER, "use_exact_model_name", "exact", "from_pretrained has no use_exact_model_name"),
        (LLAMA, "use_rslora", "rslora", "get_peft_model has no use_rslora"),
        (LLAMA, "        logits_to_keep:", "        kept:", "has no logits_to_keep"),
        (VLLM_UTILS, "load_tensors", "from_memory", "load_lora has no load_tensors"),
        (LLM, "lora_request", "adapter", "LLM.generate has no lora_request"),
        (LLM, "level: int = 1", "depth: int = 1", "LLM.sleep has no level"),
        (LLM, "*,\n        use_tqdm:", "*,\n        owner: str,\n        use_tqdm:", "needs owner"),
        (LLAMA, "use_gradient_checkpointing = None", "mode = None", "for_training has no use_"),
    ],
)
def test_a_parameter_that_was_renamed_there_is_noticed(
    file: str, old: str, new: str, expected: str
) -> None:
    broken = REAL.changed(file, old, new)
    calls = [call for ours in FILES for call in into_vendors(ours)]
    found = problems(calls, DEFINITIONS, broken)
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("max_lora_rank=", "lora_rank=", "from_pretrained has no lora_rank"),
        ("bias=", "biases=", "get_peft_model has no biases"),
        ("lora_request=lora", "lora=lora", "LLM.generate has no lora"),
        ("engine.sleep(level=1)", "engine.sleep(1, 'abort', 2)", "LLM.sleep takes 2 without names"),
        ("self.model.load_lora(ADAPTER, ", "self.model.load_lora(", "needs save_directory"),
    ],
)
def test_a_keyword_that_is_wrong_here_is_noticed(old: str, new: str, expected: str) -> None:
    file = FILES[0]
    assert old in our_source(file)
    calls = into_vendors(file, our_source(file).replace(old, new))
    found = problems(calls, DEFINITIONS, REAL)
    assert any(expected in problem for problem in found), found


def test_a_call_of_something_new_wants_a_definition() -> None:
    source = our_source(FILES[0]) + "\nengine.reset_everything()\n"
    assert "engine.reset_everything" in {c.callee for c in into_vendors(FILES[0], source)}


def test_vllm_knows_every_field_of_our_sampling() -> None:
    takes = SAMPLING_PARAMS.parameters(REAL)
    (seeded,) = [
        node
        for node in ast.walk(ast.parse(our_source(FILES[0])))
        if isinstance(node, ast.Dict) and "seed" in ast.unparse(node)
    ]
    written = {key.value for key in seeded.keys if isinstance(key, ast.Constant)}
    ours = {*sampling_fields(Sampling(9), (2,)), *written}
    assert "seed" in ours
    assert ours <= takes.names
    renamed = REAL.changed(SAMPLING_PARAMS.file, "min_tokens", "least_tokens")
    assert ours - SAMPLING_PARAMS.parameters(renamed).names == {"min_tokens"}


def test_a_prompt_of_ids_has_the_name_that_vllm_gives_it() -> None:
    prompt = REAL.parameters("vllm/inputs/llm.py", "TokensPrompt")
    assert "prompt_token_ids" in prompt.names
    assert '"prompt_token_ids"' in our_source(FILES[0])


def test_vllm_s_fields_for_the_least_length_are_those_that_trl_hands_on() -> None:
    asked: dict[str, Any] = {"generation": {"min_new_tokens": 3}}
    settings = trl_settings(parse_config(str(asked), "c"), cuda=True, vllm=True)
    assert set(settings["generation_kwargs"]) <= SAMPLING_PARAMS.parameters(REAL).names


def test_trl_makes_its_engine_with_arguments_that_this_vllm_has() -> None:
    file = "trl/generation/vllm_generation.py"
    known = REAL.parameters("vllm/engine/arg_utils.py", "EngineArgs").names
    own = REAL.parameters(LLM, "LLM.__init__").names
    (made,) = [c for c in calls_of(REAL.text(file), file) if c.callee == "LLM"]
    assert "logprobs_mode" in made.keywords
    assert set(made.keywords) <= known | own


def test_adapters_have_sizes_that_vllm_reserves() -> None:
    (sizes,) = [
        ast.literal_eval(node.value.slice)
        for node in ast.walk(ast.parse(REAL.text("vllm/config/lora.py")))
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "MaxLoRARanks"
        and isinstance(node.value, ast.Subscript)
    ]
    assert set(LORA_RANKS) <= set(sizes)


def test_a_live_adapter_is_handed_over_as_tensors() -> None:
    request = REAL.parameters("unsloth_zoo/vllm_lora_request.py", "LoRARequest")
    assert {"lora_name", "lora_int_id", "lora_tensors", "lora_config"} <= request.names
    build = REAL.source(VLLM_UTILS, "_build_lora_request")
    assert "lora_tensors=state_dict, lora_config=peft_config" in build
    patch = REAL.source(VLLM_UTILS, "patch_vllm_lora_load_tensors")
    assert "vllm.lora.request.LoRARequest = PatchedLoRARequest" in patch


def test_settings_that_we_load_with_are_all_settings_that_are_used() -> None:
    from remote_trainer.records import LoadSettings

    # `chat_template_kwargs` and `max_tokens_per_batch` go to our own parts.
    source = our_source(FILES[0])
    unused = {f.name for f in fields(LoadSettings) if f"settings.{f.name}" not in source}
    assert unused == set()

"""Facts in the packages' sources that our code, our docs or our refusals rest on.

Each fails by its name where an upgrade changed the fact; the comment says who relies on it.
"""

import pytest
from vendor import ROOT, Vendor, canonical

from remote_trainer.engines.selection import LEAST_CAPABILITY, WITHOUT_VLLM

REAL = Vendor()
LOADER, LLAMA = "unsloth/models/loader.py", "unsloth/models/llama.py"
ZOO = "unsloth_zoo/vllm_utils.py"
RL, REPLACEMENTS = "unsloth/models/rl.py", "unsloth/models/rl_replacements.py"


def load_vllm() -> str:
    return REAL.source(ZOO, "load_vllm")


# Loading: unsloth_backend.py, choice.py, pipeline/backend.py


def test_the_loaded_model_carries_its_engine_by_our_name() -> None:
    body = REAL.source(LLAMA, "FastLlamaModel.from_pretrained")
    assert "model.vllm_engine = llm" in body
    assert "llm.shared_weights = True" in body


def test_the_engine_and_the_adapter_loader_move_to_the_model_with_the_adapter() -> None:
    body = REAL.source("unsloth/models/_utils.py", "patch_peft_fast_inference")
    assert "model.vllm_engine = model.model.vllm_engine" in body
    assert "model.load_lora = functools.partial(load_lora, model)" in body


def test_adapters_and_modes_are_those_of_the_llama_class() -> None:
    # test_calls.py compares with its parameters.
    body = REAL.source(LOADER, "FastLanguageModel")
    assert body.startswith("class FastLanguageModel(FastLlamaModel):")
    assert "return FastLlamaModel.get_peft_model(model, *args, **kwargs)" in body
    assert "return FastLlamaModel.for_training(model, use_gradient_checkpointing)" in body


def test_float32_is_refused_by_its_vllm() -> None:
    assert (
        "raise NotImplementedError(f'Unsloth: We do not support dtype = {dtype} yet!')"
        in load_vllm()
    )


def test_code_of_a_model_is_refused_with_vllm() -> None:
    body = REAL.source(LLAMA, "FastLlamaModel.from_pretrained")
    assert "if trust_remote_code: if fast_inference: raise NotImplementedError(" in body


def test_4_bits_in_vllm_want_the_plugin() -> None:
    assert "vllm-bnb-plugin" in load_vllm()


def test_old_devices_and_the_gb10_lose_vllm_with_a_printed_line() -> None:
    body = REAL.source(LOADER, "FastLanguageModel.from_pretrained")
    assert f"(torch.cuda.get_device_capability()[0] < {LEAST_CAPABILITY[0]}): print(" in body
    assert LEAST_CAPABILITY[1] == 0
    assert f"'NVIDIA {WITHOUT_VLLM}' in str(torch.cuda.get_device_name(i)).upper(): print(" in body


def test_bfloat16_is_for_capability_8_and_newer() -> None:
    text = canonical(REAL.text("unsloth/models/_utils.py"))
    assert (
        "SUPPORTS_BFLOAT16 = bool(_cuda_caps) and all((major >= 8 for major, _ in _cuda_caps))"
        in text
    )
    generated = REAL.source(RL, "_patch_trl_rl_trainers_impl")
    assert "Model is in float16 precision but you want to use bfloat16" in generated


def test_a_name_is_left_alone_only_where_the_exact_one_is_asked_for() -> None:
    body = REAL.source(LOADER, "FastLanguageModel.from_pretrained")
    assert "if not use_exact_model_name: new_model_name = get_model_name(" in body


def test_standby_takes_the_shares_that_the_docs_name() -> None:
    body = load_vllm()
    tiers = [(4.0, 0.925), (2.5, 0.9), (2.0, 0.825), (1.4, 0.8), (1.0, 0.775)]
    for tenth, share in tiers:
        assert f"if ten_percent >= {tenth}: standby_target_gpu_util = {share} " in body
    assert "else: standby_target_gpu_util = 0.75 " in body
    assert "standby_target_gpu_util *= 0.95" in body
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    shares = [f"{round(share * 95)} %" for _, share in tiers] + [f"{round(0.75 * 95)} %"]
    assert f"| vLLM reserves | {' | '.join(shares)} |" in page
    assert "UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE" in body


# Sampling: vllm_sampling.py, unsloth_backend.py


def test_log_probs_are_those_of_the_changed_distribution() -> None:
    assert "logprobs_mode='processed_logprobs' if training else 'raw_logprobs'" in load_vllm()
    assert "training: bool=True" in load_vllm()


def test_no_more_log_probs_than_the_sampled_one_may_be_asked_for() -> None:
    assert "max_logprobs: int=0" in load_vllm()
    assert "max_logprobs=max_logprobs" in load_vllm()


def test_generating_wakes_the_engine_and_nobody_puts_it_to_sleep_again() -> None:
    body = REAL.source(ZOO, "get_patched_generate")
    assert "if check_sleep_mode(self): self.wake_up() return original_generate(" in body
    assert ".sleep(" not in body


def test_an_answer_without_an_adapter_is_the_base_s() -> None:
    assert "def install_generate_wrapper" in REAL.text(REPLACEMENTS)
    wrapper = REAL.source(REPLACEMENTS, "wrap_generation_call")
    assert "kwargs['lora_request'] = load_lora(lora_name, load_tensors=True)" in wrapper


def test_an_adapter_s_config_goes_to_a_folder_of_the_name_it_is_given() -> None:
    # Relative to the working directory, so our engine hands over a path of its own.
    assert "peft_config = _live_lora_config(model, save_directory)" in REAL.source(
        ZOO, "_build_lora_request"
    )
    assert "config.save_pretrained(save_directory)" in REAL.source(ZOO, "_live_lora_config")
    # TRL's trainer, as Unsloth rewrites it, asks the model for it, and so gets our path, too.
    assert "self._unsloth_load_lora = model.load_lora" in REAL.text(REPLACEMENTS)
    assert "lora_request = self.model.load_lora('" in REAL.text("unsloth/models/rl.py")


def test_weights_that_are_shared_are_not_sent() -> None:
    text = REAL.source(REPLACEMENTS, "patch_sync_weights")
    assert "shared_weights" in text
    assert "self.llm.wake_up()" in text


# Scoring: unsloth_backend.py, model_state.py


def test_fast_passes_may_drop_the_mask() -> None:
    body = REAL.source(LLAMA, "_CausalLM_fast_forward")
    assert "elif HAS_XFORMERS: causal_mask = xformers.attn_bias.LowerTriangularMask()" in body


def test_some_positions_of_logits_can_be_had_alone() -> None:
    body = REAL.source(LLAMA, "_CausalLM_fast_forward")
    assert "logits = self.lm_head(hidden_states[:, -num_logits_to_keep:, :].to(dtype))" in body


def test_labels_may_leave_the_logits_empty() -> None:
    assert "logits=EMPTY_LOGITS" in REAL.source(LLAMA, "_CausalLM_fast_forward")


def test_evaluation_forgets_the_kind_of_checkpointing() -> None:
    # scoring_mode() remembers it and hands it back to for_training.
    assert "m.gradient_checkpointing = False" in REAL.source(LLAMA, "FastLlamaModel.for_inference")


# Training: trainer/grpo.py, shared_prefix.py, trl_arguments.py


def compute_loss() -> str:
    return REAL.source(REPLACEMENTS, "grpo_trainer_compute_loss.compute_loss")


def test_the_rewritten_loss_takes_our_mask() -> None:
    assert "tool_mask = inputs.get('tool_mask', None)" in compute_loss()
    assert "_grpo_accumulated_loss_kwargs['tool_mask'] = tool_mask" in compute_loss()


def test_the_rewritten_loss_takes_our_divisor() -> None:
    assert "num_items_in_batch = inputs.get('num_items_in_batch', None)" in compute_loss()
    assert "num_items_in_batch=num_items_in_batch" in compute_loss()


def test_the_rewritten_loss_never_asks_for_compute_loss_inside() -> None:
    # So `_divisor_correction` has no effect there, and only dapo may filter groups.
    assert "self._compute_loss(" not in compute_loss()


def test_log_probs_of_old_and_reference_are_unsloth_s_own() -> None:
    # So SharedPrefixTrainer steps aside, and `sampler_gap` is null on this engine.
    assert REAL.find(REPLACEMENTS, "grpo_trainer__get_per_token_logps_and_entropies")


def test_kl_in_the_log_is_a_mean_over_completions() -> None:
    body = REAL.source("unsloth_zoo/rl_replacements.py", "masked_batch_mean")
    assert "mean_kl_per_reward = (x * mask).sum(1) / n_mask_per_reward" in body
    assert "mean_kl_per_reward.mean()" in body


def test_filling_in_of_dapo_s_clip_range_is_there_to_be_undone() -> None:
    assert "epsilon_high = 0.28" in REAL.text(RL)


def test_a_config_in_trl_s_place_claims_trl_s_module() -> None:
    # stock_class() looks for the last class of that module.
    body = REAL.source(RL, "_patch_config_pickle_identity")
    assert "__module__" in body


def test_a_batch_that_is_no_whole_number_of_groups_would_be_changed() -> None:
    assert "per_device_train_batch_size = num_generations" in REAL.source(
        REPLACEMENTS, "grpo_trainer_fix_batch_size"
    )


def test_16_bit_training_switches_to_fp16_where_neither_is_set() -> None:
    # FiniteGradients lets the scaler's overflows pass for this reason.
    generated = REAL.source(RL, "_patch_trl_rl_trainers_impl")
    assert "args.fp16 = not use_bf16_amp" in generated


@pytest.mark.parametrize(
    ("file", "old", "new", "test"),
    [
        (LLAMA, "model.vllm_engine = llm", "model.engine = llm", "the_loaded_model_carries"),
        (REPLACEMENTS, 'inputs.get("tool_mask", None)', "None", "takes_our_mask"),
        (ZOO, "max_logprobs           : int  = 0", "max_logprobs : int = 5", "no_more_log_probs"),
    ],
)
def test_a_fact_that_changed_is_noticed(
    monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, test: str
) -> None:
    monkeypatch.setitem(globals(), "REAL", REAL.changed(file, old, new))
    (named,) = [each for name, each in globals().items() if test in name]
    with pytest.raises(AssertionError):
        named()

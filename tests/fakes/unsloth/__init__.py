"""Unsloth's calls, answered by transformers and PEFT on the CPU.

Notes what was imported before it and what the environment said, as its real decisions hang on that.
"""

import contextlib
import functools
import os
import sys
from typing import Any

PATCHED = ("trl", "transformers", "peft")
EARLY = [name for name in PATCHED if name in sys.modules]
STANDBY = os.environ.get("UNSLOTH_VLLM_STANDBY", "0") == "1"
EVENTS: list[str] = []
CALLS: dict[str, dict[str, Any]] = {}

import torch  # noqa: E402
import vllm  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from trl.generation.vllm_generation import VLLMGeneration  # noqa: E402

from remote_trainer.models.quantization import keep_unpacked, nf4  # noqa: E402


class SharedEngine(vllm.LLM):
    """vLLM on the weights of the model that trains; the adapter comes with each request."""

    shared_weights = True

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.carrier: Any = self.network

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        super().sleep(1, mode)  # Unsloth's allocator leaves the weights where they are

    def _answering(self, lora_request: Any) -> Any:
        if isinstance(self.carrier, PeftModel) and lora_request is None:
            return self.carrier.disable_adapter()
        return contextlib.nullcontext()


class FastLanguageModel:
    @staticmethod
    def from_pretrained(**settings: Any) -> tuple[Any, Any]:
        CALLS["from_pretrained"] = settings
        folder = settings["model_name"]
        bits = {"quantization_config": nf4(torch.float32)} if settings["load_in_4bit"] else {}
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **bits)
        keep_unpacked(model)
        model.requires_grad_(False)
        if settings["fast_inference"] and os.environ.get("FAKE_UNSLOTH_GIVES_UP") != "vllm":
            engine = SharedEngine(folder, enable_sleep_mode=STANDBY)
            engine.network = engine.carrier = model
            model.vllm_engine = engine
        _give_modes(model)
        return model, AutoTokenizer.from_pretrained(folder)

    @staticmethod
    def get_peft_model(model: Any, **settings: Any) -> Any:
        CALLS["get_peft_model"] = settings
        torch.manual_seed(settings["random_state"])
        names = ("r", "lora_alpha", "lora_dropout", "bias", "target_modules")
        peft = get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", **{name: settings[name] for name in names})
        )
        peft.vllm_engine.carrier = peft.vllm_engine.network = peft
        peft.load_lora = functools.partial(load_lora, peft)
        _give_modes(peft)
        return peft


def load_lora(model: Any, save_directory: str, load_tensors: bool = False) -> Any:
    """The adapter as it is now; its config is written for vLLM, as the real one does."""
    assert load_tensors, "vLLM would read a file"
    model.peft_config["default"].save_pretrained(save_directory)
    return "adapter of now", save_directory


def _give_modes(model: Any) -> None:
    def for_inference() -> None:
        EVENTS.append("for_inference")
        model.eval()

    def for_training(use_gradient_checkpointing: Any = None) -> None:
        EVENTS.append(f"for_training {use_gradient_checkpointing}")
        model.train()

    model.for_inference, model.for_training = for_inference, for_training
    model.register_forward_pre_hook(_note_logits)


def _note_logits(module: Any, *_: Any) -> None:
    """Unsloth gives logits in evaluation, hidden states where its variable says so."""
    if not module.training and os.environ.get("UNSLOTH_RETURN_HIDDEN_STATES") == "1":
        EVENTS.append("hidden states in place of logits")


def _use_the_model_s_engine(self: VLLMGeneration) -> None:
    self.llm = self.model.vllm_engine
    if self.enable_sleep_mode:
        self.llm.sleep(level=2)
    self._llm_weights_sleeping = self.enable_sleep_mode


def _wake_only(self: VLLMGeneration) -> None:
    if self._llm_weights_sleeping:
        self.llm.wake_up()
        self._llm_weights_sleeping = False


_generate = VLLMGeneration.generate


def _generate_with_adapter(self: VLLMGeneration, *args: Any, **kwargs: Any) -> Any:
    plain = self.llm.generate
    self.llm.generate = lambda *a, **k: plain(
        *a,
        **{**k, "lora_request": self.model.load_lora("grpo_trainer_lora_model", load_tensors=True)},
    )
    try:
        return _generate(self, *args, **kwargs)
    finally:
        del self.llm.generate


VLLMGeneration._init_vllm = _use_the_model_s_engine
VLLMGeneration.sync_weights = _wake_only
VLLMGeneration.generate = _generate_with_adapter

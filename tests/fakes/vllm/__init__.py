"""vLLM's outputs and calls, answered by a transformers model on the CPU."""

import os
from types import SimpleNamespace
from typing import Any

import torch

from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams

__all__ = ["LLM", "RequestOutput", "SamplingParams"]

ENDS_AT = int(os.environ.get("FAKE_VLLM_ENDS_AT", "0"))
"""Tokens after which an answer ends, so that long limits cost nothing; 0: as the model likes."""
EVENTS: list[str] = []
"""What was asked of engines, in order."""
MADE: list[dict[str, Any]] = []
"""Settings of the engines that were made."""


class LLM:
    """An engine with a model of its own; TRL makes it and sends it weights."""

    def __init__(self, model: str, **settings: Any) -> None:
        from transformers import AutoModelForCausalLM

        MADE.append({"model": model, **settings})
        self.sleeps = settings.get("enable_sleep_mode", False)
        self.asleep: set[str] = set()
        self.network = AutoModelForCausalLM.from_pretrained(model).eval()
        self.discarded = False
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=self._load_weights))
        worker = SimpleNamespace(model_runner=runner)
        self.llm_engine = SimpleNamespace(
            model_executor=SimpleNamespace(driver_worker=worker),
            vllm_config=SimpleNamespace(
                model_config=SimpleNamespace(enable_sleep_mode=self.sleeps)
            ),
        )

    def _load_weights(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        assert "weights" not in self.asleep, "weights were sent to memory that is not there"
        own = dict(self.network.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, value in weights:
                own[name].copy_(value)
        self.discarded = False

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        EVENTS.append(f"sleep {level}")
        assert self.sleeps, "sleep mode was not enabled when the engine was made"
        self.asleep = {"weights", "kv_cache"}
        self.discarded = self.discarded or level == 2

    def wake_up(self, tags: list[str] | None = None) -> None:
        EVENTS.append("wake " + " ".join(tags or ["all"]))
        self.asleep -= set(tags or self.asleep)

    def reset_prefix_cache(self) -> None:
        EVENTS.append("reset cache")

    def generate(
        self,
        prompts: list[dict[str, Any]],
        sampling_params: SamplingParams | list[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: Any = None,
    ) -> list[RequestOutput]:
        assert not self.asleep, f"asked to generate with {self.asleep} asleep"
        assert not self.discarded, "asked to generate with weights that a deep sleep threw away"
        EVENTS.append("generate with adapter" if lora_request else "generate")
        assert sampling_params is not None
        each = (
            sampling_params
            if isinstance(sampling_params, list)
            else [sampling_params] * len(prompts)
        )
        with torch.no_grad(), self._answering(lora_request):
            return [
                self._complete(i, list(prompt["prompt_token_ids"]), params)
                for i, (prompt, params) in enumerate(zip(prompts, each, strict=True))
            ]

    def _answering(self, lora_request: Any) -> Any:
        import contextlib

        assert lora_request is None, "this engine was sent merged weights, no adapter"
        return contextlib.nullcontext()

    def _complete(self, index: int, prompt: list[int], params: SamplingParams) -> RequestOutput:
        generator = torch.Generator().manual_seed(params.seed if params.seed is not None else index)
        stops = {*params.stop_token_ids, self.network.config.eos_token_id}
        ids: list[int] = []
        places: list[dict[int, Logprob]] = []
        reason: tuple[str, int | None] = ("length", None)
        while len(ids) < params.max_tokens:
            logits = self.network(torch.tensor([prompt + ids])).logits[0, -1].float()
            if len(ids) + 1 == ENDS_AT:
                logits[self.network.config.eos_token_id] = 1e4
            if len(ids) < params.min_tokens:
                logits[list(stops)] = float("-inf")
            logprobs = (logits / (params.temperature or 1.0)).log_softmax(-1)
            token = (
                int(logprobs.argmax())
                if params.temperature == 0
                else int(torch.multinomial(logprobs.exp(), 1, generator=generator))
            )
            rank = int((logprobs > logprobs[token]).sum()) + 1
            ids.append(token)
            places.append({token: Logprob(logprobs[token].item(), rank, None)})
            if token in stops:
                reason = ("stop", token)
                break
        completion = CompletionOutput(
            index=0,
            text="",
            token_ids=ids,
            cumulative_logprob=None,
            logprobs=places if params.logprobs is not None else None,
            finish_reason=reason[0],
            stop_reason=reason[1],
        )
        return RequestOutput(str(index), None, prompt, None, [completion], True)

"""The engine that runs everywhere: transformers with PEFT, on CPU or CUDA."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from remote_trainer.cpu.malloc import keep_freed_memory
from remote_trainer.cpu.prepacked_linear import count_packed, order_now, prepack_linears
from remote_trainer.cpu.prepacked_lora import prepack_adapters
from remote_trainer.engines.token_budget import TokenBudget
from remote_trainer.eos_ids import eos_ids_of
from remote_trainer.errors import UserInputError
from remote_trainer.faults import fault_point
from remote_trainer.inference.decoding_paths import DecodingPaths
from remote_trainer.inference.row_paths import RowPaths
from remote_trainer.models.attention import use_shared_attention
from remote_trainer.models.dropout import switch_off
from remote_trainer.models.fast_path import fast_path
from remote_trainer.models.hardware import computes_in_bfloat16
from remote_trainer.models.limits import Limits
from remote_trainer.models.lora_layers import lora_config
from remote_trainer.models.modes import causal_model
from remote_trainer.models.quantization import is_in_4bit, keep_unpacked, nf4
from remote_trainer.progress import OnProgress
from remote_trainer.records import (
    AdapterSettings,
    Continuation,
    Generation,
    LoadSettings,
    Sampling,
    ScoreRequest,
    TokenIds,
)
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer


class TransformersBackend:
    """Implements `remote_trainer.engines.protocol.Backend`; also wraps a loaded model."""

    name = "transformers"
    rewrites_trl = False

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_tokens_per_batch: int = 8192,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        use_shared_attention(model)
        self.model = model
        self.prompt_tokenizer = PromptTokenizer(tokenizer, eos_ids_of(model), chat_template_kwargs)
        self.max_tokens_per_batch = max_tokens_per_batch
        self.budget = TokenBudget()
        self._rows = RowPaths(model)
        self._decoding = DecodingPaths()
        self._not_ordered: str | None = None

    @classmethod
    def load(cls, folder: Path, settings: LoadSettings) -> Self:
        """Load from a local folder; weights must be safetensors."""
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # it would break the progress bar of the caller
        dtype = torch_dtype(settings.dtype)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with _code_refused(folder):
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                **_in_4bit(dtype, device) if settings.load_in_4bit else {},
                use_safetensors=True,
                trust_remote_code=settings.trust_remote_code,
                local_files_only=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=settings.trust_remote_code, local_files_only=True
            )
        model.to(device)
        keep_unpacked(model)
        model.requires_grad_(False)
        if settings.disable_dropout:
            switch_off(model)
        not_ordered = None
        if model.device.type == "cpu":
            keep_freed_memory()
            not_ordered = prepack_linears(model)
        backend = cls(
            model.eval(),
            tokenizer,
            max_tokens_per_batch=settings.max_tokens_per_batch,
            chat_template_kwargs=settings.chat_template_kwargs,
        )
        backend._not_ordered = not_ordered
        return backend

    @property
    def in_4bit(self) -> bool:
        """Whether the base is quantised."""
        return is_in_4bit(causal_model(self.model))

    @property
    def most_positions(self) -> int | None:
        """See `Backend`."""
        return Limits.of(self.model).positions

    def describe(self) -> dict[str, Any]:
        """The actual settings, for environment.json."""
        return {
            "engine": self.name,
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "in_4bit": self.in_4bit,
            "standby": False,
            "fast_path": fast_path(self._reasons()),
            "ways": self._paths(),
        }

    def _reasons(self) -> dict[str, str]:
        """Fast path -> why it is not taken."""
        ordered = {"ordered weights": self._not_ordered} if self._not_ordered else {}
        sampling = {f"sampling in {name}": why for name, why in self._decoding.reasons.items()}
        return {**ordered, **self._rows.reasons, **sampling}

    def _paths(self) -> dict[str, str]:
        """Which fast paths were taken so far, and why others were not."""
        sampling = {f"sampling in {dtype}": told for dtype, told in self._decoding.told.items()}
        return {"ordered weights": count_packed(self.model), **self._rows.told, **sampling}

    def add_adapter(self, settings: AdapterSettings) -> None:
        """Add LoRA; seeded here because TRL seeds only after the adapter exists.

        Raises UserInputError if no layer has one of the names.
        """
        from peft import get_peft_model
        from transformers import set_seed

        config = lora_config(self.model, settings)
        order_now(self.model)
        set_seed(settings.seed)
        self.model = get_peft_model(self.model, config)
        prepack_adapters(self.model)

    def load_adapter(self, folder: Path) -> None:
        """Add a saved adapter, frozen."""
        from peft import PeftModel

        self.model = PeftModel.from_pretrained(self.model, folder, is_trainable=False)

    def generate(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        on_progress: OnProgress | None = None,
    ) -> list[Generation]:
        """One completion per prompt, in order.

        Raises UserInputError for ids or lengths beyond the limits of the model.
        """
        fed_back = sampling.max_new_tokens - 1  # the last id is not an input
        Limits.of(self.model).require(prompts, fed_back)
        dtype = self._sampling_dtype(sampling)
        most = self.max_tokens_per_batch
        return self.budget.run(
            lambda limit: self._decoding.generate(
                self.model,
                self.prompt_tokenizer,
                prompts,
                sampling,
                min(most, limit or most),
                dtype,
                on_progress,
            ),
            at_most=most,
        )

    def _sampling_dtype(self, sampling: Sampling) -> torch.dtype:
        own: torch.dtype = self.model.dtype
        if sampling.dtype is None:
            return own
        if sampling.dtype == "auto":
            fast = own == torch.float32 and computes_in_bfloat16(self.model.device)
            return torch.bfloat16 if fast else own
        return torch_dtype(sampling.dtype)

    def samples_as_it_scores(self, sampling: Sampling) -> bool:
        """Whether both use the same weights in the same dtype."""
        return bool(self._sampling_dtype(sampling) == self.model.dtype)

    def score(
        self, requests: Sequence[ScoreRequest], on_progress: OnProgress | None = None
    ) -> list[tuple[float, ...]]:
        """Numbers in nats, one tuple per request.

        Raises UserInputError for ids or lengths beyond the limits of the model.
        """
        Limits.of(self.model).require([request.inputs for request in requests])
        most = self.max_tokens_per_batch

        def score(limit: int | None) -> list[tuple[float, ...]]:
            fault_point("scoring")
            pad_id, tokens = self.prompt_tokenizer.pad_id, min(most, limit or most)
            return self._rows.score(self.model, requests, pad_id, tokens, on_progress)

        return self.budget.run(score, at_most=most)

    def shares_prefixes(self, rows: Sequence[Continuation], training: bool = False) -> bool:
        """Whether rows with a common prefix may share a pass; tested once, on the first rows."""
        return self._rows.shares(self.model, rows, training)

    def logprobs(
        self,
        model: Any,
        rows: Sequence[Continuation],
        width: int,
        temperature: float,
        with_entropies: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """See `Backend`."""
        pad_id = self.prompt_tokenizer.pad_id
        return self.budget.run(
            lambda limit: self._rows.logprobs(
                model, rows, width, temperature, pad_id, with_entropies, limit
            )
        )

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter and its config, without the base model."""
        self.model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)


@contextmanager
def _code_refused(folder: Path) -> Iterator[None]:
    """transformers' error for a model that needs its own code becomes a UserInputError."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise UserInputError.at(
            "model.trust_remote_code",
            f"the model in {folder} needs code of its authors, which is not run by default; "
            "read it, then write trust_remote_code: true and the revision that you read, or choose "
            "another model",
        ) from error


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of a setting; ``auto`` is bfloat16 on CUDA and float32 on CPU."""
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype), f"{name} is no dtype; the schema should have refused it"
    return dtype


def _in_4bit(dtype: torch.dtype, device: str) -> dict[str, Any]:
    return {"quantization_config": nf4(dtype), "device_map": {"": device}}

"""The engine for one NVIDIA GPU: Unsloth trains, its vLLM samples, both on the same weights.

Never run on a GPU by this project; see docs/gpu.md for what is checked without one.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from remote_trainer.engines.token_budget import TokenBudget
from remote_trainer.engines.unsloth_import import MEMORY_SHARE, import_unsloth
from remote_trainer.engines.vllm_sampling import (
    draws_plainly,
    ids_and_logprobs,
    sampling_fields,
    seeds,
)
from remote_trainer.eos_ids import eos_ids_of
from remote_trainer.errors import EngineError
from remote_trainer.inference.agreement import LIMITS, largest, why_apart
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

logger = logging.getLogger(__name__)

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values for max_lora_rank; it must be at least the rank of the adapter."""
ROWS_COMPARED = 4
ADAPTER = "remote_trainer"


class UnslothBackend:
    """Implements `remote_trainer.engines.protocol.Backend` on CUDA."""

    name = "unsloth"
    rewrites_trl = True
    most_positions = None  # no model that Unsloth supports has learned positions

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_tokens_per_batch: int = 8192,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        max_seq_length: int = 2048,
        gradient_checkpointing: bool = True,
    ) -> None:
        self.model = model
        self.prompt_tokenizer = PromptTokenizer(tokenizer, eos_ids_of(model), chat_template_kwargs)
        self.max_tokens_per_batch = max_tokens_per_batch
        self.budget = TokenBudget()
        self.max_seq_length = max_seq_length
        self._checkpointing = gradient_checkpointing
        self._has_adapter = False
        self._scores_checked = False

    @classmethod
    def load(cls, folder: Path, settings: LoadSettings) -> Self:
        """Load a local folder into vLLM; Unsloth's model shares its weights.

        Raises EngineError if Unsloth silently fell back: without vLLM, or with other weights.
        """
        in_4bit = settings.load_in_4bit
        model, tokenizer = import_unsloth().FastLanguageModel.from_pretrained(
            model_name=str(folder),
            max_seq_length=settings.max_seq_length,
            dtype=_dtype(settings.dtype),
            load_in_4bit=in_4bit,
            load_in_16bit=not in_4bit,
            fast_inference=True,
            gpu_memory_utilization=MEMORY_SHARE,
            max_lora_rank=_max_lora_rank(settings.lora_rank),
            use_gradient_checkpointing="unsloth" if settings.gradient_checkpointing else False,
            # Otherwise Unsloth replaces a name by its own quantised copy.
            use_exact_model_name=True,
            trust_remote_code=settings.trust_remote_code,
            random_state=settings.seed,
        )
        if settings.disable_dropout:
            # It imports torch, which must come after Unsloth: Unsloth chooses the allocator.
            from remote_trainer.models.dropout import switch_off

            switch_off(model)
        backend = cls(
            model,
            tokenizer,
            max_tokens_per_batch=settings.max_tokens_per_batch,
            chat_template_kwargs=settings.chat_template_kwargs,
            max_seq_length=settings.max_seq_length,
            gradient_checkpointing=settings.gradient_checkpointing,
        )
        backend._require_settings(in_4bit)
        return backend

    def _require_settings(self, in_4bit: bool) -> None:
        if not hasattr(self.model, "vllm_engine"):
            raise EngineError(
                "Unsloth loaded the model without vLLM; its message is above. Set model.backend: "
                "transformers to train without Unsloth"
            )
        if self.in_4bit != in_4bit:
            found = "4-bit" if self.in_4bit else "16-bit"
            raise EngineError(
                f"Unsloth loaded {found} weights, but model.load_in_4bit is {str(in_4bit).lower()}"
            )

    @property
    def in_4bit(self) -> bool:
        """Whether the base is quantised."""
        kinds = {type(module).__name__ for module in self.model.modules()}
        return "Linear4bit" in kinds

    def describe(self) -> dict[str, Any]:
        """The actual settings, for environment.json."""
        config = self.model.vllm_engine.llm_engine.vllm_config.model_config
        return {
            "engine": self.name,
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "in_4bit": self.in_4bit,
            "standby": bool(getattr(config, "enable_sleep_mode", False)),
            "fast_path": "off, because Unsloth and vLLM use their own kernels",
        }

    def add_adapter(self, settings: AdapterSettings) -> None:
        """Add LoRA with Unsloth's kernels."""
        self.model = import_unsloth().FastLanguageModel.get_peft_model(
            self.model,
            r=settings.r,
            target_modules=list(settings.target_modules),
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            bias="none",
            use_gradient_checkpointing="unsloth" if self._checkpointing else False,
            random_state=settings.seed,
            use_rslora=False,
            init_lora_weights=True,
        )
        self._has_adapter = True
        self._lead_adapter_files_away()

    def _lead_adapter_files_away(self) -> None:
        """Unsloth writes the config of an adapter for vLLM into a folder of the adapter's name, in
        the working directory; our rollouts and those of TRL's trainer get another place."""
        load = self.model.load_lora
        self._adapter_files = TemporaryDirectory(prefix="remote-trainer-")  # goes with the backend
        folder = Path(self._adapter_files.name)

        def load_lora(save_directory: str, *more: Any, **named: Any) -> Any:
            return load(str(folder / Path(save_directory).name), *more, **named)

        self.model.load_lora = load_lora

    def load_adapter(self, folder: Path) -> None:
        """Add a saved adapter; rank and alpha come from its config."""
        from peft import LoraConfig, set_peft_model_state_dict
        from peft.utils import load_peft_weights

        saved = LoraConfig.from_pretrained(folder)
        targets = tuple(sorted(saved.target_modules))
        self.add_adapter(AdapterSettings(saved.r, saved.lora_alpha, 0.0, targets, seed=0))
        result = set_peft_model_state_dict(self.model, load_peft_weights(str(folder), device="cpu"))
        if result.unexpected_keys:
            raise EngineError(
                f"{folder} contains weights that match no layer: {result.unexpected_keys[:3]}"
            )

    def generate(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        on_progress: OnProgress | None = None,
    ) -> list[Generation]:
        """One completion per prompt from vLLM, with the adapter as it is now, all in one call."""
        from vllm import SamplingParams

        eos_ids = self.prompt_tokenizer.eos_ids
        fields = sampling_fields(sampling, eos_ids)
        each: list[dict[str, Any]] = [
            fields if sampling.temperature == 0 else {**fields, "seed": seed}
            for seed in seeds(prompts, sampling.seed, sampling.earlier)
        ]
        with self._awake() as engine:
            # Without it vLLM samples from the base: only Unsloth's model has the adapter.
            lora = self.model.load_lora(ADAPTER, load_tensors=True) if self._has_adapter else None
            outputs = engine.generate(
                [{"prompt_token_ids": list(prompt)} for prompt in prompts],
                [SamplingParams(**one) for one in each],
                use_tqdm=False,
                lora_request=lora,
            )
        if on_progress is not None:
            on_progress(len(prompts), len(prompts))
        sampled = [ids_and_logprobs(output) for output in outputs]
        logprobs = [own for _, own in sampled]
        if not draws_plainly(sampling):
            logprobs = self._logprobs(prompts, [ids for ids, _ in sampled])
        as_drawn = sampling.temperature in (0, 1)
        return [
            Generation(ids, plain, plain if as_drawn else drawn, bool(ids) and ids[-1] in eos_ids)
            for (ids, drawn), plain in zip(sampled, logprobs, strict=True)
        ]

    def _logprobs(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
    ) -> list[tuple[float, ...]]:
        pairs = zip(prompts, completions, strict=True)
        return self.score([ScoreRequest.of(prompt, ids) for prompt, ids in pairs])

    @contextmanager
    def _awake(self) -> Iterator[Any]:
        """vLLM's engine, awake inside the block and asleep again afterwards."""
        engine = self.model.vllm_engine
        sleeps = self.describe()["standby"]
        if sleeps:
            engine.wake_up()
        try:
            yield engine
        finally:
            if sleeps:
                engine.sleep(level=1)

    def samples_as_it_scores(self, sampling: Sampling) -> bool:
        """vLLM's log-probs count as the policy's: same weights, other kernels."""
        return draws_plainly(sampling)

    def score(
        self, requests: Sequence[ScoreRequest], on_progress: OnProgress | None = None
    ) -> list[tuple[float, ...]]:
        """Numbers in nats, one tuple per request, by Unsloth's forward pass.

        Raises EngineError if a row is longer than max_seq_length (Unsloth would truncate it), or
        if padding changes the logits.
        """
        longest = max((len(request.inputs) for request in requests), default=0)
        if longest > self.max_seq_length:
            raise EngineError(
                f"a sequence of {longest} tokens is longer than model.max_seq_length="
                f"{self.max_seq_length}; raise it"
            )
        if not self._scores_checked:
            self._check_scores([r for r in requests if r.target][:ROWS_COMPARED])
        return self._score(requests, on_progress)

    def _score(
        self, requests: Sequence[ScoreRequest], on_progress: OnProgress | None = None
    ) -> list[tuple[float, ...]]:
        # It imports transformers, which Unsloth must patch first.
        from remote_trainer.inference.scoring import score_requests

        most = self.max_tokens_per_batch
        return self.budget.run(
            lambda limit: score_requests(
                self.model,
                requests,
                self.prompt_tokenizer.pad_id,
                min(most, limit or most),
                on_progress,
                # Unsloth's fast passes may drop the mask; only right padding works then.
                padded_on="right",
            ),
            at_most=most,
        )

    def _check_scores(self, requests: Sequence[ScoreRequest]) -> None:
        """Check on the first rows that the model returns logits, and that padding has no effect."""
        if not requests:
            return
        self._require_logits(requests[0].inputs)
        together = self._score(requests)
        alone = [self._score([request])[0] for request in requests]
        gap = largest(
            sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a)
            for a, b in zip(together, alone, strict=True)
        )
        if why_apart(gap, LIMITS[self.name]) is not None:
            raise EngineError(
                f"log-probs of padded rows differ from those of single rows by {gap:.2g} nats; "
                "rewards cannot be computed with this version of Unsloth. Set model.backend: "
                "transformers"
            )
        self._scores_checked = True

    def _require_logits(self, ids: TokenIds) -> None:
        """With some settings Unsloth returns hidden states, or nothing, instead of logits."""
        import torch

        # It imports torch, which must come after Unsloth: Unsloth chooses the allocator.
        from remote_trainer.models.modes import causal_model, scoring_mode

        vocabulary = causal_model(self.model).get_output_embeddings().weight.shape[0]
        ids_1L = torch.tensor([ids], device=self.model.device)
        with scoring_mode(self.model):
            found = self.model(input_ids=ids_1L, logits_to_keep=1, use_cache=False).logits
        if found.shape[1:] != (1, vocabulary):
            raise EngineError(
                f"the model should return logits of shape (1, {vocabulary}), but returned "
                f"{tuple(found.shape[1:])}; set model.backend: transformers"
            )

    def shares_prefixes(self, rows: Sequence[Continuation], training: bool = False) -> bool:
        """Never: Unsloth runs its own forward pass."""
        return False

    def logprobs(
        self,
        model: Any,
        rows: Sequence[Continuation],
        width: int,
        temperature: float,
        with_entropies: bool = True,
    ) -> tuple[Any, Any]:
        """Never called: Unsloth runs the forward passes of training itself."""
        raise EngineError("Unsloth runs the forward passes of training itself")

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter and its config in PEFT format."""
        self.model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)


def _dtype(name: str) -> Any:
    """None lets Unsloth choose: bfloat16 if the GPU supports it."""
    import torch

    return None if name == "auto" else getattr(torch, name)


def _max_lora_rank(rank: int) -> int:
    """The smallest of vLLM's values for max_lora_rank that fits ``rank``."""
    fits = [size for size in LORA_RANKS if size >= rank]
    if not fits:
        raise EngineError(
            f"lora.r={rank} is over {LORA_RANKS[-1]}, the largest rank that vLLM supports"
        )
    return fits[0]

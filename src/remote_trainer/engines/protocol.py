"""The interface of an engine. A new engine is one file that implements this protocol."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

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

if TYPE_CHECKING:
    from remote_trainer.engines.token_budget import TokenBudget  # it imports torch


class Backend(Protocol):
    """A model with its tokenizer; generates, scores and holds one adapter."""

    model: Any
    prompt_tokenizer: PromptTokenizer
    budget: "TokenBudget"
    """Tokens in one pass of sampling, scoring and updates, lowered where memory is exhausted."""

    @property
    def in_4bit(self) -> bool:
        """Whether the base's weights are quantised to 4 bits."""
        ...

    @property
    def most_positions(self) -> int | None:
        """Maximum sequence length if position embeddings are learned; otherwise None."""
        ...

    @property
    def rewrites_trl(self) -> bool:
        """Whether the engine replaces the forward passes of TRL's trainer with its own."""
        ...

    @classmethod
    def load(cls, folder: Path, settings: LoadSettings) -> Self:
        """Load the model in ``folder``, without an adapter."""
        ...

    def describe(self) -> dict[str, Any]:
        """The actual settings: engine, dtype, in_4bit, standby, fast_path (on, or why not); for
        environment.json."""
        ...

    def add_adapter(self, settings: AdapterSettings) -> None:
        """Add a new, trainable adapter; the model's outputs do not change yet."""
        ...

    def load_adapter(self, folder: Path) -> None:
        """Add a saved adapter, for inference."""
        ...

    def generate(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        on_progress: OnProgress | None = None,
    ) -> list[Generation]:
        """One completion per prompt, in order; the caller's random state is unchanged.

        ``on_progress`` is called with the number of completions done and their total.
        """
        ...

    def samples_as_it_scores(self, sampling: Sampling) -> bool:
        """Whether sampling log-probs equal those of a scoring pass, up to rounding."""
        ...

    def score(
        self, requests: Sequence[ScoreRequest], on_progress: OnProgress | None = None
    ) -> list[tuple[float, ...]]:
        """Numbers in nats at temperature 1, one tuple per request, without gradient.

        ``on_progress`` is called with the number of requests done and their total.
        """
        ...

    def shares_prefixes(self, rows: Sequence[Continuation], training: bool = False) -> bool:
        """Whether rows with a common prefix may share a pass, tested on the first ``rows``: in
        evaluation mode, or in training mode."""
        ...

    def logprobs(
        self,
        model: Any,
        rows: Sequence[Continuation],
        width: int,
        temperature: float,
        with_entropies: bool = True,
    ) -> tuple[Any, Any]:
        """(log-probs with gradient, entropies without), tensors of (rows, ``width``), 0 after the
        last id; nats, float32, at ``temperature``. ``model`` is the backend's, possibly wrapped.

        Called only for engines with ``rewrites_trl`` False.
        """
        ...

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter as a PEFT folder (safetensors)."""
        ...

"""What an engine must do. A new one is one more file that fulfils this protocol."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

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


class Backend(Protocol):
    """A model with its tokenizer, able to generate, to score and to carry one adapter."""

    model: Any
    prompt_tokenizer: PromptTokenizer

    @property
    def in_4bit(self) -> bool:
        """Whether the base's weights are quantised to 4 bits."""
        ...

    @property
    def most_positions(self) -> int | None:
        """Most tokens of a row, where the model has learnt a vector for each position."""
        ...

    @property
    def rewrites_trl(self) -> bool:
        """Whether the engine put passes of its own into TRL's trainer, which then keep the word."""
        ...

    @classmethod
    def load(cls, folder: Path, settings: LoadSettings) -> Self:
        """Bring the model in ``folder`` into memory, without an adapter."""
        ...

    def describe(self) -> dict[str, Any]:
        """What was really obtained: engine, dtype, in_4bit, standby, fast_path (on, or why not);
        for environment.json."""
        ...

    def add_adapter(self, settings: AdapterSettings) -> None:
        """Put a fresh, trainable adapter on the model; the model's outputs do not change yet."""
        ...

    def load_adapter(self, folder: Path) -> None:
        """Put a saved adapter on the model, for use without training."""
        ...

    def generate(self, prompts: Sequence[TokenIds], sampling: Sampling) -> list[Generation]:
        """One completion per prompt, in order; the caller's random state is left as it was."""
        ...

    def samples_as_it_scores(self, sampling: Sampling) -> bool:
        """Whether generation records the log-probs a scoring pass would give, up to rounding."""
        ...

    def score(
        self, requests: Sequence[ScoreRequest], on_progress: OnProgress | None = None
    ) -> list[tuple[float, ...]]:
        """Numbers in nats at temperature 1, one tuple per request, without gradient.

        ``on_progress`` is called with the number of requests done and their total.
        """
        ...

    def shares_prefixes(self, rows: Sequence[Continuation], training: bool = False) -> bool:
        """Whether rows that begin alike may share a pass, judged on the first ``rows`` given:
        in evaluation mode, or in the mode that training uses."""
        ...

    def logprobs(
        self,
        model: Any,
        rows: Sequence[Continuation],
        width: int,
        temperature: float,
        with_entropies: bool = True,
    ) -> tuple[Any, Any]:
        """(log-probs with gradient, entropies without), tensors of (rows, ``width``), 0 behind the
        last id; nats, float32, at ``temperature``. ``model`` is the backend's, perhaps wrapped.

        Asked only of engines that do not rewrite TRL.
        """
        ...

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter as a PEFT folder (safetensors)."""
        ...

"""Limits of a loaded model: token ids, and positions if these are learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch.nn import Embedding

from remote_trainer.errors import UserInputError
from remote_trainer.models.layer_names import POSITIONS
from remote_trainer.models.modes import causal_model
from remote_trainer.records import TokenIds


@dataclass(frozen=True)
class Limits:
    """Ids must be below ``ids``, rows at most ``positions`` long; None: no limit."""

    ids: int | None
    positions: int | None

    @classmethod
    def of(cls, model: Any) -> Self:
        """Limits of a model; no limits if it is not a transformers model."""
        causal = causal_model(model)
        config = getattr(causal, "config", None)
        if config is None or not hasattr(causal, "get_input_embeddings"):
            return cls(None, None)
        rows = getattr(causal.get_input_embeddings(), "num_embeddings", None)
        learnt = any(
            isinstance(module, Embedding) and path.rpartition(".")[2] in POSITIONS
            for path, module in causal.named_modules()
        )
        most = getattr(config.get_text_config(), "max_position_embeddings", None)
        return cls(rows, most if learnt else None)

    def require(self, rows: Sequence[TokenIds], new_tokens: int = 0) -> None:
        """Raises UserInputError unless all rows, plus ``new_tokens`` more tokens, fit."""
        largest = max((max(row, default=0) for row in rows), default=0)
        if self.ids is not None and largest >= self.ids:
            raise UserInputError.at(
                "model.name",
                f"token id {largest} is out of range: the model's embedding has only {self.ids} "
                "rows, but its tokenizer is larger; use the tokenizer that the model was trained "
                "with, or resize its embeddings",
            )
        longest = max(map(len, rows), default=0) + new_tokens
        if self.positions is not None and longest > self.positions:
            raise UserInputError.at(
                "model.name",
                f"a sequence of {longest} tokens is longer than the model's "
                f"max_position_embeddings={self.positions}, and its position embeddings are "
                "learned; shorten prompts and references, or lower the completion length",
            )

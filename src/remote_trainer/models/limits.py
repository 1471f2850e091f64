"""What a model in memory has vectors for: ids, and positions where these are learnt."""

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
    """Ids below ``ids``, and at most ``positions`` of them in a row; None: no such limit."""

    ids: int | None
    positions: int | None

    @classmethod
    def of(cls, model: Any) -> Self:
        """Those of a model; none of one that is no transformers model."""
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

    def require(self, rows: Sequence[TokenIds], room: int = 0) -> None:
        """Raises UserInputError unless all rows, and ``room`` tokens behind them, can be read."""
        largest = max((max(row, default=0) for row in rows), default=0)
        if self.ids is not None and largest >= self.ids:
            raise UserInputError.at(
                "model.name",
                f"id {largest} is to be read, and the model's embedding has {self.ids} rows: its "
                "tokenizer is larger; use the tokenizer that the model was trained with, or resize "
                "its embeddings",
            )
        longest = max(map(len, rows), default=0) + room
        if self.positions is not None and longest > self.positions:
            raise UserInputError.at(
                "model.name",
                f"a row of {longest} tokens is to be read, over the model's "
                f"max_position_embeddings={self.positions}, and these are learnt; shorten prompts "
                "and references, or lower the lengths of completions",
            )

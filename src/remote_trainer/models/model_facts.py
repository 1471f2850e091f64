"""Limits of a model from its files: config.json, generation_config.json, headers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from remote_trainer.eos_ids import ids_in
from remote_trainer.errors import UserInputError
from remote_trainer.json_files import read_object
from remote_trainer.models.layer_names import LayerNames

_POSITION_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
)


@dataclass(frozen=True)
class ModelFacts:
    """A model's folder, read once."""

    folder: Path

    def read(self) -> None:
        """Read every file. Raises UserInputError for one that cannot be read."""
        _ = self.layers, self.config, self.eos_ids

    @cached_property
    def layers(self) -> LayerNames:
        """Its layers by name."""
        return LayerNames.of(self.folder)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json of the language model."""
        whole = _read(self.folder / "config.json")
        text = whole.get("text_config")
        return {**whole, **text} if isinstance(text, dict) else whole

    @cached_property
    def positions(self) -> tuple[str, int] | None:
        """(key of config.json, maximum positions); None if the config has none."""
        for key in _POSITION_KEYS:
            value = self.config.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return key, value
        return None

    @property
    def learnt_positions(self) -> int | None:
        """Maximum sequence length if position embeddings are learned; otherwise None."""
        if not self.layers.learns_positions:
            return None
        return self.positions[1] if self.positions else None

    @property
    def vocabulary(self) -> int | None:
        """Rows of the input embedding."""
        found = self.layers.vocabulary
        if found is not None:
            return found
        size = self.config.get("vocab_size")
        return size if isinstance(size, int) else None

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """End-of-sequence ids of the model, as transformers reads them."""
        own = _read(self.folder / "generation_config.json")
        value = own.get("eos_token_id") if own else self.config.get("eos_token_id")
        ids = ids_in(value)
        if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            raise UserInputError.at(
                str(self.folder / ("generation_config.json" if own else "config.json")),
                f"eos_token_id is {value!r}; write an id or a list of ids",
            )
        return ids

    @property
    def is_tied(self) -> bool:
        """Whether head and input embedding share their weight."""
        named = self.config.get("tie_word_embeddings")
        heads = ("lm_head", "embed_out", "output_layer")
        return bool(named) if named is not None else self.layers.rows_of(heads) is None


def _read(file: Path) -> dict[str, Any]:
    if not os.path.lexists(file):
        return {}
    try:
        return read_object(file)
    except (OSError, ValueError) as error:
        raise UserInputError.at(
            str(file), f"cannot be read as JSON: {error}; copy or download the model again"
        ) from None

"""The input of an export: folders of base model and adapter."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from remote_trainer.export.model_card import CardFacts


@dataclass(frozen=True)
class Source:
    """Base model and adapter of a trained model."""

    base: Path
    adapter: Path
    """PEFT folder with tokenizer and chat template."""
    gguf_type: str = "q8_0"
    trained_in_4bit: bool = False
    """The adapter was trained on the 4-bit form of ``base``."""
    merge_base: Literal["dequantized", "original"] = "dequantized"
    """The weights such an adapter is merged into."""

    facts: CardFacts | None = None
    """For the model card; None: no card."""

    @property
    def merges_into_dequantized(self) -> bool:
        """Whether a merge needs the dequantised base."""
        return self.trained_in_4bit and self.merge_base == "dequantized"

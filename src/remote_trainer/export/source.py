"""What an export is made from: folders of the base model and of the adapter."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from remote_trainer.export.model_card import CardFacts


@dataclass(frozen=True)
class Source:
    """A trained model in parts."""

    base: Path
    adapter: Path
    """PEFT folder with tokenizer and chat template."""
    gguf_type: str = "q8_0"
    trained_in_4bit: bool = False
    """The adapter belongs to the 4-bit form of ``base``."""
    merge_base: Literal["dequantized", "original"] = "dequantized"
    """What such an adapter is merged into."""

    facts: CardFacts | None = None
    """For the model card; None: none is written."""

    @property
    def merges_into_dequantized(self) -> bool:
        """Whether a merge needs the base as the 4 bits made it."""
        return self.trained_in_4bit and self.merge_base == "dequantized"

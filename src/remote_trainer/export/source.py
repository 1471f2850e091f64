"""What an export is made from: folders of the base model and of the adapter."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A trained model in parts."""

    base: Path
    adapter: Path
    """PEFT folder with tokenizer and chat template."""
    gguf_type: str = "q8_0"

    @property
    def base_bytes(self) -> int:
        """Size of the base's weights on disk."""
        return sum(file.stat().st_size for file in self.base.glob("*.safetensors"))

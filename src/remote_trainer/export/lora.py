"""The adapter as a PEFT folder with tokenizer, chat template and a model card."""

from pathlib import Path

from remote_trainer.engine.backend import Backend
from remote_trainer.export.model_card import CardFacts, model_card
from remote_trainer.run_dir import new_folder, write_text


def export_lora(backend: Backend, target: Path, facts: CardFacts) -> Path:
    """Write ``target`` whole or not at all; returns it."""
    with new_folder(target) as folder:
        backend.save_adapter(folder)
        backend.codec.tokenizer.save_pretrained(folder)
        # PEFT writes a card of its own, which knows neither data nor reward.
        write_text(folder / "README.md", model_card(facts))
    return target

"""Finished adapter -> files that other programs load."""

from remote_trainer.export.lora import export_lora

__all__ = ["export_lora"]

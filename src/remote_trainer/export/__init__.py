"""Finished adapter -> files that other programs can load."""

from remote_trainer.export.lora import export_lora

__all__ = ["export_lora"]

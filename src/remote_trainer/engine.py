"""The public name for finding a model: ``from remote_trainer.engine import resolve_model``."""

from remote_trainer.models.resolve import resolve_model

__all__ = ["resolve_model"]

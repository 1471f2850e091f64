"""Models: where they are found, how they are loaded, how they generate and score."""

from remote_trainer.engine.resolve import resolve_model

__all__ = ["resolve_model"]

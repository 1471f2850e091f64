"""Models: where they are found, how they are loaded, how they generate and score."""

from remote_trainer.telemetry import send_no_usage_data

# Here, because every library that sends usage data is imported below this room or above it.
send_no_usage_data()

from remote_trainer.engine.resolve import resolve_model  # noqa: E402

__all__ = ["resolve_model"]

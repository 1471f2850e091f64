"""The brake: what loss-based rewards are known to break, and when that is bad enough to stop."""

from remote_trainer.guard.alarms import ALARMS, Alarm, Levels
from remote_trainer.guard.guard import Finding, Guard

__all__ = ["ALARMS", "Alarm", "Finding", "Guard", "Levels"]

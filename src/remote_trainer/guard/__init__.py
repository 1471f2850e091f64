"""The guard: alarms for the ways in which training goes wrong, and when to warn and stop."""

from remote_trainer.guard.alarms import ALARMS, Alarm, Levels
from remote_trainer.guard.guard import GUARD_KEYS, Finding, Guard

__all__ = ["ALARMS", "GUARD_KEYS", "Alarm", "Finding", "Guard", "Levels"]

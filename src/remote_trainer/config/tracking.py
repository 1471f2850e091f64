"""Where a run is shown besides its own folder."""

from typing import TYPE_CHECKING, Literal

from remote_trainer.config.section import Section
from remote_trainer.trackers.tracker import NONE, TRACKERS

if TYPE_CHECKING:
    TrackerName = str
else:
    TrackerName = Literal[(NONE, *TRACKERS)]


class TrackingSettings(Section):
    report_to: TrackerName = "none"
    """Also send metrics, alarms of the guard and sample completions to trackio, wandb or
    tensorboard; offline unless the tracker's own variables say otherwise (docs/trackers.md)."""

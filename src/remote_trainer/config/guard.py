"""The guard: what happens at a stop level, and the levels of each alarm."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model

from remote_trainer.config.section import Section
from remote_trainer.guard import ALARMS, Alarm, Levels


def _level_settings(name: str, alarm: Alarm) -> Any:
    """The section with the two levels of one alarm: (field, default)."""
    side = "or more" if alarm.worse == "higher" else "or less"
    levels = alarm.levels
    section = create_model(
        f"{name}_levels",
        __base__=Section,
        warn=(
            float | None,
            Field(levels.warn, description=(f"Warn at this value {side}; null: never.")),
        ),
        stop=(
            float | None,
            Field(levels.stop, description=(f"Stop at this value {side}; null: never.")),
        ),
    )
    return section, section()


if TYPE_CHECKING:
    AlarmLevels = Section
else:
    AlarmLevels = create_model(
        "AlarmLevels",
        __base__=Section,
        **{name: _level_settings(name, alarm) for name, alarm in ALARMS.items()},
    )


class GuardSettings(Section):
    action: Literal["stop", "warn", "off"] = "stop"
    """At a stop level: stop the run and use the adapter from before the warnings (exit code 3), or
    only warn. off disables the guard."""
    levels: AlarmLevels = AlarmLevels()
    """Warn and stop level of each alarm; docs/guard.md explains them."""

    def active_levels(self) -> dict[str, Levels]:
        """Of every alarm; all None if the guard is off."""
        if self.action == "off":
            return {name: Levels(None, None) for name in ALARMS}
        return {name: Levels(**section) for name, section in self.levels.model_dump().items()}

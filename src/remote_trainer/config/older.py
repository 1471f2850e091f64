"""Settings that older versions did not have: what they did then stands here, so that a run folder
goes on as it began."""

from collections.abc import Iterator, Mapping
from typing import Any

from remote_trainer.config.schema import RunConfig
from remote_trainer.config.section import Section

CONFIG_FORMAT = 2
"""Of config.resolved.yaml; one more whenever a setting is added whose default is not what was
done before."""
FORMAT_KEY = "config_format"

ADDED: Mapping[str, tuple[int, Any]] = {"training.disable_dropout": (2, False)}
"""Setting -> (the format that has it first, what was done before)."""


def older_values(written: int) -> dict[str, Any]:
    """Settings that a file of the format ``written`` lacks, each with what was done then."""
    return {key: before for key, (first, before) in ADDED.items() if written < first}


def format_of(resolved: Any) -> int:
    """Of the content of a config.resolved.yaml; the first ones did not say."""
    found = resolved.get(FORMAT_KEY, 1) if isinstance(resolved, dict) else 1
    return found if isinstance(found, int) else 1


def fill_in(value: dict[str, Any], written: int) -> None:
    """Add to the content of a resolved config what it lacks."""
    for key, before in older_values(written).items():
        section, _, name = key.partition(".")
        holder = value.setdefault(section, {})
        if isinstance(holder, dict):
            holder.setdefault(name, before)


def as_begun(config: RunConfig, written: int) -> RunConfig:
    """``config`` for a run that began with the format ``written``: newer settings are as they were
    then, unless the config sets them itself."""
    sections = dict(_changed_sections(config, older_values(written)))
    return config.model_copy(update=sections) if sections else config


def _changed_sections(
    config: RunConfig, values: Mapping[str, Any]
) -> Iterator[tuple[str, Section]]:
    for key, before in values.items():
        section, _, name = key.partition(".")
        settings: Section = getattr(config, section)
        if name not in settings.model_fields_set:
            yield section, settings.model_copy(update={name: before})

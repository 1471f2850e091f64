"""Former behaviour of settings that older versions lack, so that a run continues as it started."""

from collections.abc import Iterator, Mapping
from typing import Any

from remote_trainer.config.schema import RunConfig
from remote_trainer.config.section import Section

CONFIG_FORMAT = 3
"""Format of config.resolved.yaml; increased when the default of a new setting differs from the
former behaviour."""
FORMAT_KEY = "config_format"

ADDED: Mapping[str, tuple[int, Any]] = {
    "training.disable_dropout": (2, False),
    "evaluation.limit_from": (3, "references"),
}
"""Setting -> (first format with it, former behaviour)."""


def older_values(written: int) -> dict[str, Any]:
    """Settings that a file of the format ``written`` lacks, with their former behaviour."""
    return {key: before for key, (first, before) in ADDED.items() if written < first}


def format_of(resolved: Any) -> int:
    """The format of a config.resolved.yaml; the first format did not record it."""
    found = resolved.get(FORMAT_KEY, 1) if isinstance(resolved, dict) else 1
    return found if isinstance(found, int) else 1


def fill_in(value: dict[str, Any], written: int) -> None:
    """Add missing settings to the content of a resolved config."""
    for key, before in older_values(written).items():
        section, _, name = key.partition(".")
        holder = value.setdefault(section, {})
        if isinstance(holder, dict):
            holder.setdefault(name, before)


def as_begun(config: RunConfig, written: int) -> RunConfig:
    """``config`` for a run that started with the format ``written``: newer settings get their
    former behaviour, unless the config sets them."""
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

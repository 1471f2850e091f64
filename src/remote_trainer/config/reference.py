"""docs/config.md out of the schema, so that the page cannot say anything else."""

import inspect
import json
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from remote_trainer.config.schema import RunConfig
from remote_trainer.rewards import REWARDS

_HEAD = """# Config reference

Made from the schema by `make docs`; `configs/default.yaml` holds the same defaults to copy from.
Unknown keys are refused, every problem is listed with its line, and `--set section.key=value`
overrides a file. Relative paths are relative to the working directory.
"""


def config_reference() -> str:
    """The whole page as Markdown."""
    parts = [_HEAD]
    for name, field in RunConfig.model_fields.items():
        section = _section_of(field.annotation)
        if section is not None:
            parts.append(f"## {name}\n\n{_table(section)}")
    parts.append("## reward\n\nOne reward, or a list of rewards that are summed by `weight`.\n")
    for name, kind in REWARDS.items():
        parts.append(f"### type: {name}\n\n{inspect.getdoc(kind)}\n\n{_table(kind)}")
    parts.append(
        "## output_dir\n\nThe run folder (default `runs/run`). An unfinished run in it is "
        "continued, a finished one is not done again.\n"
    )
    return "\n".join(parts)


def _table(section: type[BaseModel]) -> str:
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for name, field in section.model_fields.items():
        meaning = (field.description or "").replace("\n", " ").replace("|", "\\|")
        rows.append(f"| `{name}` | {_default(field.default)} | {meaning} |")
    return "\n".join(rows) + "\n"


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "(must be written)"
    return f"`{json.dumps(value)}`" if value is not None else "`null`"


def _section_of(annotation: Any) -> type[BaseModel] | None:
    members = (annotation, *getattr(annotation, "__args__", ()))
    return next((m for m in members if isinstance(m, type) and issubclass(m, BaseModel)), None)

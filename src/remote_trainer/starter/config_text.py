"""A config as text, with a comment above each setting. The comments are the schema's docstrings."""

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from remote_trainer.config import RunConfig
from remote_trainer.config.section import section_of
from remote_trainer.config.yaml_file import dump_yaml
from remote_trainer.docs_pages.reward_pages import options_of, reward_page
from remote_trainer.rewards import REWARDS

SCHEMA_FILE = "config.schema.json"
WIDTH = 96
_HEAD = f"""\
# yaml-language-server: $schema={SCHEMA_FILE}
#
# Written by `remote-trainer init`. These are the settings that are changed most often; all settings
# are in docs/config.md of the project. Relative paths start at the folder in which you call
# `remote-trainer`.
"""


def commented_config(values: Mapping[str, Any]) -> str:
    """YAML with ``values``: by section and key, and ``reward`` as a list of mappings."""
    lines: list[str] = []
    for name, value in values.items():
        field = RunConfig.model_fields[name]
        section = section_of(field.annotation)
        lines.append("")
        if name == "reward":
            lines += ["reward:", *(line for each in value for line in _reward(each))]
        elif section is not None:
            lines += [f"{name}:", *_keys(value, section, "  ")]
        else:
            lines += [*_comment(field.description or "", ""), _line(name, value)]
    return _HEAD + "\n".join(lines) + "\n"


def _reward(values: Mapping[str, Any]) -> list[str]:
    """One entry of the list of rewards; ``type`` is its first key."""
    kind = values["type"]
    own = {key: value for key, value in values.items() if key != "type"}
    summary = _comment(reward_page(kind).summary, "  ")
    return [*summary, f"  - type: {kind}", *_keys(own, REWARDS[kind], "    ")]


def _keys(values: Mapping[str, Any], section: type[BaseModel], indent: str) -> list[str]:
    options = {option.name: option for option in options_of(section)}
    lines = []
    for key, value in values.items():
        option = options[key]
        usual = option.default not in (None, json.dumps(value))
        default = f" Default: {option.default}." if usual else ""
        lines += [*_comment(option.meaning + default, indent), indent + _line(key, value)]
    return lines


def _comment(text: str, indent: str) -> list[str]:
    start = f"{indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=start)


def _line(key: str, value: Any) -> str:
    """``key: value`` on one line. JSON, which is valid YAML, where YAML's own style needs more."""
    text = dump_yaml({key: value}).rstrip("\n")
    return text if "\n" not in text else f"{key}: {json.dumps(value, ensure_ascii=False)}"

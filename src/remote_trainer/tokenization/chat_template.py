"""Chat templates of a model folder, rendered without transformers.

Templates get the same variables and filters as in transformers; a test compares both.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from remote_trainer import json_files
from remote_trainer.errors import UserInputError

ChatTemplate = str | dict[str, str]
"""One template, or several by name."""
DEFAULT, TOOL_USE = "default", "tool_use"


@dataclass(frozen=True)
class TemplateFile:
    """The text of a template and its file."""

    source: str
    file: str


def template_files(folder: Path) -> dict[str, TemplateFile]:
    """The templates of a model folder by name, as transformers finds them.

    Separate files take precedence over tokenizer_config.json.
    """
    found = {}
    extra = {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    for name, path in {DEFAULT: folder / "chat_template.jinja", **extra}.items():
        if os.path.lexists(path):
            found[name] = TemplateFile(read_text(path), str(path))
    return found or _in_config(folder / "tokenizer_config.json")


def _in_config(path: Path) -> dict[str, TemplateFile]:
    written = read_json(path).get("chat_template")
    place = f"{path} (chat_template)"  # lines are counted inside the template
    if isinstance(written, str):
        written = {DEFAULT: written}
    if isinstance(written, list) and all(isinstance(each, dict) for each in written):
        written = {each.get("name"): each.get("template") for each in written}
    if written is None:
        return {}
    if not isinstance(written, dict) or not all(isinstance(t, str) for t in _all_of(written)):
        message = "is neither a text nor texts by name; download the model again"
        raise UserInputError.at(place, message)
    return {name: TemplateFile(source, place) for name, source in written.items()}


def _all_of(written: Mapping[Any, Any]) -> tuple[Any, ...]:
    return (*written.keys(), *written.values())


@lru_cache
def file_of(folder: str, source: str) -> str:
    """The file in a model folder that contains a template; empty if none does."""
    files = template_files(Path(folder)).values() if folder else ()
    return next((each.file for each in files if each.source == source), "")


def choose(
    templates: ChatTemplate | None, requested: str | None, tools: Sequence[Any] | None
) -> str | None:
    """The template that transformers chooses: the one requested by name or as text, or
    ``tool_use`` if there are tools, or the default; None if there is none."""
    if not isinstance(templates, dict):
        return templates if requested is None else requested
    if requested is not None:
        return templates.get(requested, requested)
    if tools is not None and TOOL_USE in templates:
        return templates[TOOL_USE]
    return templates.get(DEFAULT)


@lru_cache
def compiled(source: str) -> Template:
    """A template ready to render, compiled once."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    template = environment.from_string(source)
    template.globals = dict(template.globals)  # the original ChainMap is slow to copy for each row
    return template


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's text; here its content is rendered unchanged."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call block, as in transformers: variables set inside stay local.
        call = self.call_method("_unchanged", lineno=line)
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _unchanged(self, caller: Any) -> str:
        return str(caller())


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's filter would escape HTML characters."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty if the file does not exist. Raises UserInputError for other content."""
    if not os.path.lexists(path):
        return {}
    try:
        return json_files.read_object(path)
    except (OSError, ValueError) as error:
        raise UserInputError.at(
            str(path), f"not a JSON object ({error}); download the model again"
        ) from error


def read_text(path: Path) -> str:
    """Raises UserInputError if it cannot be read as UTF-8."""
    try:
        return json_files.read_text(path)
    except UnicodeDecodeError as error:
        raise UserInputError.at(
            str(path), f"not UTF-8 at byte {error.start + 1}; download the model again"
        ) from error
    except (OSError, ValueError) as error:
        raise UserInputError.at(
            str(path), f"cannot be read ({error}); download the model again"
        ) from error

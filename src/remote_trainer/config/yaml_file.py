"""YAML with 5e-6 as a number, off as a string, no duplicate keys, and line numbers.

ruamel.yaml supports YAML 1.2, but stops at the first duplicate key, parses dates, and writes `off`
without quotes, which other programs read as false: most of this module would still be needed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from remote_trainer.errors import Problem

Path = tuple[str | int, ...]


_TO_1_2 = (":bool", ":int", ":float", ":timestamp")
_DEEPEST = 50  # levels; far below Python's recursion limit, and more than any config needs
_MOST_NODES = 10_000  # with aliases written out, of which a few lines can name billions
_MOST_DIGITS = 30  # no setting is as large, and Python does not print thousands of digits
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2 rules for numbers, booleans and dates: 010 is 10, and
    1:30 and dates are strings.

    Refuses deep nesting, which would exceed Python's recursion limit later, more values than any
    config has, and tags of other values than JSON has.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._open: list[str | None] = []  # anchors of the nodes around this one
        self._nodes = 0
        self._nodes_of: dict[str, int] = {}  # by anchor

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        reason = None
        if isinstance(event, yaml.AliasEvent) and event.anchor in self._open:
            reason = f"the alias *{event.anchor} refers to a node that contains it"
        elif len(self._open) == _DEEPEST:
            reason = f"nested more than {_DEEPEST} levels deep"
        elif self._nodes > _MOST_NODES:
            reason = f"more than {_MOST_NODES} values"
        if reason:
            raise ComposerError(None, None, reason, event.start_mark)
        before = self._nodes
        aliased = isinstance(event, yaml.AliasEvent)
        self._nodes += self._nodes_of.get(event.anchor, 0) if aliased else 1
        self._open.append(event.anchor)
        node = super().compose_node(parent, index)
        self._open.pop()
        if event.anchor and not aliased:
            self._nodes_of[event.anchor] = self._nodes - before
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError):  # `!!float x`, `!!bool x`
            reason = f"not a value of the type {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, reason, node.start_mark) from None

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        if len(text) > _MOST_DIGITS:
            reason = f"an integer with more than {_MOST_DIGITS} digits"
            raise ConstructorError(None, None, reason, node.start_mark)
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if not tag.endswith(_TO_1_2)]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.endswith((":null", ":bool", ":float", ":str", ":seq", ":map"))
}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)


class _Dumper(yaml.SafeDumper):
    """Quotes strings that YAML 1.1 reads as other types (off), and those that we do (1e5)."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:int",
        re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"),
        list("-+0123456789"),
    )
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(
            r"""^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?
            |[-+]?[0-9]+[eE][-+]?[0-9]+
            |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
            re.VERBOSE,
        ),
        list("-+0123456789."),
    )


@dataclass(frozen=True)
class YamlFile:
    """The content of a YAML file, with line numbers."""

    name: str
    value: Any
    lines: Mapping[Path, int]
    problems: tuple[Problem, ...]

    def where(self, path: Path) -> str:
        """``file:line`` of the key at ``path``, or of the closest key above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path in self.lines else self.name


def parse_yaml(text: str, name: str) -> YamlFile:
    """Read one document; syntax errors and repeated keys become problems."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        return YamlFile(name, {}, {}, (_syntax_problem(error, name),))
    lines: dict[Path, int] = {}
    problems: list[Problem] = []
    if node is not None:
        _walk(node, (), name, lines, problems)
    try:
        value = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        problems.append(_syntax_problem(error, name))
        value = {}
    return YamlFile(name, value, lines, tuple(problems))


def parse_scalar(text: str) -> Any:
    """A value parsed as in a file; used for ``--set``."""
    return yaml.load(text, Loader=_Loader)


def dump_yaml(value: Any) -> str:
    """Text that `parse_yaml` reads back to ``value``."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _walk(
    node: yaml.Node, path: Path, name: str, lines: dict[Path, int], problems: list[Problem]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            line = key.start_mark.line + 1
            if inner in lines:
                problems.append(
                    Problem(
                        f"{name}:{line}",
                        f"{dotted(inner)}: duplicate key, first on line {lines[inner]}; keep one",
                    )
                )
            lines[inner] = line
            _walk(value, inner, name, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _walk(value, (*path, index), name, lines, problems)
    elif _SURROGATE.search(node.value):
        problems.append(
            Problem(
                f"{name}:{node.start_mark.line + 1}",
                f"{dotted(path)}: contains half a surrogate pair; write the whole character",
            )
        )


def dotted(path: Path) -> str:
    """``training.learning_rate``, as keys are named in messages."""
    return ".".join(str(part) for part in path)


def _syntax_problem(error: yaml.YAMLError, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{name}:{mark.line + 1}" if mark else name
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    return Problem(where, f"not valid YAML: {reason}")

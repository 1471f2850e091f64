"""The calls that our source makes into the packages, found in its syntax tree."""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vendor import ROOT, Parameters, Vendor

SRC = ROOT / "src" / "remote_trainer"


@dataclass(frozen=True)
class Call:
    """One call; ``callee`` is the text in front of the bracket."""

    where: str
    callee: str
    positional: int
    keywords: tuple[str, ...]


@dataclass(frozen=True)
class Definition:
    """Where the called thing is defined; ``bound``: its first parameter is given already."""

    file: str
    name: str
    bound: bool = False

    def parameters(self, vendor: Vendor) -> Parameters:
        """What it takes from a caller."""
        found = vendor.parameters(self.file, self.name)
        return found.without_first() if self.bound else found


def our_source(file: str) -> str:
    """Text of a file of ours."""
    return (SRC / file).read_text(encoding="utf-8")


def calls_of(source: str, file: str) -> list[Call]:
    """Every call in a text. ``f(**some)`` counts with the keywords that are written out."""
    return [
        Call(
            where=f"{Path(file).name}:{node.lineno}",
            callee=ast.unparse(node.func),
            positional=len(node.args),
            keywords=tuple(k.arg for k in node.keywords if k.arg is not None),
        )
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
    ]


def problems(
    calls: Iterable[Call], definitions: Mapping[str, tuple[Definition, ...]], vendor: Vendor
) -> list[str]:
    """What the packages would not take as it is written; a sentence each.

    A keyword that only ``**kwargs`` would swallow is one: nobody would read it.
    """
    found = []
    for call in calls:
        for definition in definitions[call.callee]:
            takes = definition.parameters(vendor)
            given = {*takes.positional[: call.positional], *call.keywords}
            at = f"{call.where}: {definition.name}"
            found += [f"{at} has no {name}" for name in call.keywords if name not in takes.names]
            found += [f"{at} needs {name}" for name in sorted(takes.required - given)]
            if call.positional > len(takes.positional) and not takes.any_positional:
                found.append(f"{at} takes {len(takes.positional)} without names")
    return found

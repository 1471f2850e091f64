"""The real packages, read as text: where a function or a class stands and what it takes.

Nothing is imported from them. A copy of them with a line changed (`Vendor.changed`) shows that the
tests would notice.
"""

import ast
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("GPU_CONTRACT", ROOT / ".cache" / "gpu-contract"))
SITE, SOURCES = FOLDER / "site", FOLDER / "sources"


@dataclass(frozen=True)
class Parameters:
    """What a function takes, or the fields that a class is made with."""

    positional: tuple[str, ...]
    keyword_only: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()
    any_positional: bool = False
    any_keyword: bool = False
    nameless: frozenset[str] = frozenset()
    """Those that can only be given by their place."""

    @property
    def names(self) -> frozenset[str]:
        """Every name that can be given as a keyword."""
        return frozenset((*self.positional, *self.keyword_only))

    def without_first(self) -> "Parameters":
        """As a method or a partial is called: self, or the model, is bound already."""
        first, *rest = self.positional
        return replace(self, positional=tuple(rest), required=self.required - {first})


@dataclass(frozen=True)
class Vendor:
    """Files by their path inside an environment's folder of packages, as "trl/trainer/utils.py"."""

    changes: Mapping[str, str] = field(default_factory=dict)
    """Text in place of a file's own."""

    def changed(self, file: str, old: str, new: str) -> "Vendor":
        """A copy in which ``old``, which must be there, is ``new`` everywhere in a file."""
        assert old in self.text(file), f"{old!r} is not in {file}"
        return Vendor({**self.changes, file: self.text(file).replace(old, new)})

    def text(self, file: str) -> str:
        """A file's source."""
        return self.changes.get(file) or _read(file)

    def find(self, file: str, name: str) -> ast.AST:
        """The definition of a dotted name, at any depth below ``if`` and ``try``."""
        node: ast.AST = _parse(self.text(file))
        for part in name.split("."):
            found = _inside(node, part)
            assert found is not None, f"{file} defines no {name}"
            node = found
        return node

    def source(self, file: str, name: str) -> str:
        """A definition as `canonical` writes it."""
        return _unparsed(self.find(file, name))

    def parameters(self, file: str, name: str) -> Parameters:
        """Of a function, or of the class whose fields are annotated."""
        node = self.find(file, name)
        if isinstance(node, ast.ClassDef):
            return _fields(node)
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        return parameters_of(node.args)


def canonical(text: str) -> str:
    """Source as Python itself would write it, on one line: no comments, no matter of layout."""
    return _unparsed(_parse(text))


@cache
def _unparsed(node: ast.AST) -> str:
    return re.sub(r"\s+", " ", ast.unparse(node))


def vendor_files(*packages: str) -> Iterator[str]:
    """Every Python file of packages in the folder of the contract."""
    for package in packages:
        for place in (SITE, SOURCES):
            for path in sorted((place / package).rglob("*.py")):
                yield str(path.relative_to(place))


@cache
def _read(file: str) -> str:
    if not (FOLDER / "site").exists():
        pytest.fail(f"{FOLDER} is not there; run `make test-gpu-contract`")
    package = find_spec(file.split("/")[0])
    own = Path(package.origin).parents[1] if package and package.origin else SITE
    for place in (SITE, SOURCES, own):
        if (place / file).exists():
            return (place / file).read_text(encoding="utf-8")
    raise AssertionError(f"{file} is in none of the packages")


@cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def _inside(node: ast.AST, name: str) -> ast.AST | None:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    named = (each for each in ast.walk(node) if isinstance(each, kinds) and each.name == name)
    return next((each for each in named if each is not node), None)


def parameters_of(arguments: ast.arguments) -> Parameters:
    """Of a definition's arguments."""
    positional = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    bare = positional[: len(positional) - len(arguments.defaults)]
    open_keywords = [
        a.arg
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    return Parameters(
        positional=tuple(positional),
        keyword_only=tuple(a.arg for a in arguments.kwonlyargs),
        required=frozenset((*bare, *open_keywords)),
        any_positional=arguments.vararg is not None,
        any_keyword=arguments.kwarg is not None,
        nameless=frozenset(a.arg for a in arguments.posonlyargs),
    )


def _fields(node: ast.ClassDef) -> Parameters:
    lines = [
        line
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    ]
    named = [(line.target.id, line.value) for line in lines if isinstance(line.target, ast.Name)]
    return Parameters(
        positional=tuple(name for name, _ in named),
        required=frozenset(name for name, value in named if value is None),
    )

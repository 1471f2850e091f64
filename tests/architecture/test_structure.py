"""Sizes of files, folders and functions, and a reason for every import inside a function."""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from math import ceil
from statistics import median

import pytest
from test_layers import SRC, imports_of, modules, package_of

MOST_LINES = 350
MOST_MODULES = 16
MOST_LINES_OF_A_FUNCTION = 59
MEDIAN_LINES, LINES_OF_MOST = 7, 27
"""Of functions: the median, and the 95th percentile."""

LAZY = {
    *("torch", "transformers", "peft", "trl", "datasets", "unsloth", "vllm", "gguf", "xllamacpp"),
    *("huggingface_hub", "pyarrow", "sacrebleu", "plotly", "rich", "accelerate", "ray", "fsspec"),
    *("trackio", "wandb", "tensorboard", "numpy"),
}
"""Libraries that take long to import, or that the base install does not have. They are imported
where they are used, so that `--help`, `check` and the light install do without; no comment needs to
say so. Unsloth has to come before trl, transformers and peft, which it patches."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(source: str) -> list[Function]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)]


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def functions() -> Iterator[tuple[str, Function]]:
    """Each function of the package with the place where it stands."""
    for path in sorted(SRC.rglob("*.py")):
        for function in functions_of(path.read_text()):
            yield f"{path.relative_to(SRC)}: {function.name}", function


def too_long(found: Iterable[tuple[str, int]], most: int) -> list[str]:
    """What is over its limit."""
    return [f"{name}: {lines} lines, at most {most}" for name, lines in found if lines > most]


def test_files_are_short() -> None:
    found = [
        (str(path.relative_to(SRC)), len(path.read_text().splitlines()))
        for path in sorted(SRC.rglob("*.py"))
    ]
    assert too_long(found, MOST_LINES) == []


def test_folders_hold_few_modules() -> None:
    found = [
        path for path in SRC.rglob("*.py") if path.name != "__init__.py" and path.parent != SRC
    ]
    counts = Counter(str(path.parent.relative_to(SRC)) for path in found)
    assert {name: count for name, count in counts.items() if count > MOST_MODULES} == {}


def test_functions_are_short() -> None:
    found = [(name, length(function)) for name, function in functions()]
    assert too_long(found, MOST_LINES_OF_A_FUNCTION) == []
    lengths = sorted(lines for _, lines in found)
    assert median(lengths) <= MEDIAN_LINES
    assert lengths[ceil(0.95 * len(lengths)) - 1] <= LINES_OF_MOST


def test_every_function_says_what_it_returns() -> None:
    assert [f"{name}:{each.lineno}" for name, each in functions() if each.returns is None] == []


def test_no_two_packages_import_each_other() -> None:
    edges = {
        (package_of(path), target.split(".")[1])
        for path in modules()
        for _, target in imports_of(path.read_text(), path.name)
        if target.startswith("remote_trainer.")
    }
    assert [(a, b) for a, b in sorted(edges) if a < b and (b, a) in edges] == []


def has_reason(lines: list[str], number: int) -> bool:
    """Whether a comment stands on the line or above it; above the first of several imports, it
    counts for all of them."""
    if "#" in lines[number - 1]:
        return True
    above = number - 1
    while above > 0 and lines[above - 1].strip().startswith(("import ", "from ")):
        above -= 1
    return above > 0 and lines[above - 1].strip().startswith("#")


def without_reason(source: str) -> list[int]:
    """Lines of imports inside functions that neither `LAZY` nor a comment explains."""
    lines = source.splitlines()
    inside = chain.from_iterable(ast.walk(function) for function in functions_of(source))
    found = set()
    for node in inside:
        if isinstance(node, ast.Import):
            libraries = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            libraries = {(node.module or "").split(".")[0]}
        else:
            continue
        if libraries - LAZY and not has_reason(lines, node.lineno):
            found.add(node.lineno)
    return sorted(found)


def test_every_import_inside_a_function_has_a_reason() -> None:
    faults = [
        f"{path.relative_to(SRC)}:{line}: import it at the top, or say in a comment why not"
        for path in sorted(SRC.rglob("*.py"))
        for line in without_reason(path.read_text())
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("import json", [2]),
        ("from remote_trainer import paths", [2]),
        ("# a reason\n\n import json", [4]),
        ("import torch, json", [2]),
        ("import torch", []),
        ("from transformers.utils import logging", []),
        ("import json  # a reason", []),
        ("# a reason\n import json", []),
        ("# a reason for both\n import json\n import ast", []),
    ],
)
def test_the_test_catches_what_it_forbids(body: str, lines: list[int]) -> None:
    assert without_reason(f"def f() -> None:\n {body}\n") == lines


def test_what_is_too_long_is_named() -> None:
    assert too_long([("a", 11), ("b", 10)], 10) == ["a: 11 lines, at most 10"]

"""Nothing in the package is there for nobody."""

import ast
import re
from collections import Counter
from pathlib import Path
from typing import get_args

from remote_trainer.records import Measure

SRC = Path(__file__).parents[2] / "src" / "remote_trainer"
FOR_SCRIPTS = frozenset(
    {"SHAPES", "rewards_reference", "run_folder_reference", "config_reference"}
    | {"guard_reference", "default_config"}
)
"""Names that only the scripts in this repository ask for, to write pages and tables."""


def defined_in(source: str) -> list[str]:
    """Names of constants, functions and classes of a module; those with a decorator register."""
    found: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found += (
                [] if node.decorator_list and isinstance(node, ast.FunctionDef) else [node.name]
            )
        elif isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.append(node.target.id)
    return [name for name in found if not name.startswith("__")]


def unused(sources: dict[str, str]) -> list[str]:
    """What is defined in one module and named nowhere else in any."""
    words = Counter(word for source in sources.values() for word in re.findall(r"\w+", source))
    return [
        f"{place}: {name}"
        for place, source in sources.items()
        for name in defined_in(source)
        if words[name] == 1 and name not in FOR_SCRIPTS
    ]


def test_every_name_is_used() -> None:
    sources = {str(file.relative_to(SRC)): file.read_text() for file in SRC.rglob("*.py")}
    assert unused(sources) == []


def test_every_measure_is_asked_for_by_a_reward() -> None:
    rewards = "".join(file.read_text() for file in (SRC / "rewards").rglob("*.py"))
    default, *others = get_args(Measure)
    assert default == "logprob"
    assert [measure for measure in others if f'"{measure}"' not in rewards] == []


def test_the_test_finds_what_it_is_for() -> None:
    assert unused({"a.py": "X = 1\ndef f(): pass\nY: int = f()\n", "b.py": "Y"}) == ["a.py: X"]

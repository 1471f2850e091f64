"""What every test of an error must check."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

# What a bare assert says is pytest's own text, which shows values and changes with pytest.
WITHOUT_A_TEXT = {"AssertionError"}


def is_raises(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises"


def names_looked_at(function: ast.AST) -> dict[str, list[int]]:
    """Names of which ``.value`` is read, each with the lines where it is."""
    found: dict[str, list[int]] = {}
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Attribute)
            and node.attr == "value"
            and isinstance(node.value, ast.Name)
        ):
            found.setdefault(node.value.id, []).append(node.lineno)
    return found


def raises_of(function: ast.AST) -> list[tuple[ast.Call, str | None]]:
    """Calls of pytest.raises, each with the name that its ``with`` gives it."""
    named = {
        id(item.context_expr): item.optional_vars.id
        for node in ast.walk(function)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name)
    }
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and is_raises(node)]
    return [(call, named.get(id(call))) for call in calls]


def unchecked(source: str) -> list[int]:
    """Lines with a pytest.raises that any error of the class would pass."""
    found = set()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        looked_at = names_looked_at(function)
        calls = raises_of(function)
        for call, name in calls:
            matched = any(keyword.arg == "match" for keyword in call.keywords)
            until = min(
                (c.lineno for c, other in calls if other == name and c.lineno > call.lineno),
                default=10**9,
            )
            read = any(call.lineno < line < until for line in looked_at.get(name or "", []))
            textless = bool(call.args) and ast.unparse(call.args[0]) in WITHOUT_A_TEXT
            if not (matched or read or textless):
                found.add(call.lineno)
    return sorted(found)


def test_an_expected_error_is_told_from_others_of_its_class() -> None:
    faults = [
        f"{path.relative_to(TESTS)}:{line}: add match=, or look at the .value that was caught"
        for path in sorted(TESTS.rglob("*.py"))
        for line in unchecked(path.read_text())
    ]
    assert not faults, "\n".join(faults)


CAUGHT = "with pytest.raises({}) as e:\n  f()\n"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("with pytest.raises(ValueError):\n  f()", True),
        ("with pytest.raises(ValueError) as e:\n  f()", True),
        ("with a(), pytest.raises(ValueError):\n  f()", True),
        ("pytest.raises(ValueError, f)", True),
        # The first is not checked: the name is that of the second where it is read.
        (f"{CAUGHT.format('A')} {CAUGHT.format('B')} assert e.value", True),
        ("with pytest.raises(ValueError, match='no'):\n  f()", False),
        ("with pytest.raises(ValueError) as e:\n  f()\n assert str(e.value) == 'no'", False),
        ("with pytest.raises(AssertionError):\n  f()", False),
    ],
)
def test_the_test_catches_what_it_forbids(body: str, fault: bool) -> None:
    assert bool(unchecked(f"def test() -> None:\n {body}\n")) is fault

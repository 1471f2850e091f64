"""The rules of the data files for extraction and word problems (see `data/README.md`)."""

import ast
import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import pytest
from tasks import extraction, word_problems
from tasks.extraction_templates import VALUES
from write_tasks import files

DATA = Path(__file__).resolve().parents[3] / "data"
PARTS = ("train", "eval")
TASKS = ("extraction", "word_problems")
ROWS = {"train": 300, "eval": 150}
KEYS = {
    "extraction": ["prompt", "answer", "kind", "template"],
    "word_problems": ["prompt", "answer", "kind", "template", "expression"],
}
OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}

Row = dict[str, str]


def load(part: str, task: str) -> list[Row]:
    text = (DATA / f"{part}_{task}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def both(task: str) -> list[Row]:
    return load("train", task) + load("eval", task)


def words(text: str) -> list[str]:
    return re.findall(r"[\w:]+", text.casefold())


def count_of(answer: str, text: str) -> int:
    """How often the answer stands in a text as whole words."""
    wanted, found = words(answer), words(text)
    starts = range(len(found) - len(wanted) + 1)
    return sum(found[start : start + len(wanted)] == wanted for start in starts)


def value(expression: str) -> int:
    """The value of a calculation with whole numbers."""

    def of(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp):
            return OPERATIONS[type(node.op)](of(node.left), of(node.right))
        assert isinstance(node, ast.Constant), f"{expression}: {ast.dump(node)}"
        assert type(node.value) is int, f"{expression}: {node.value!r}"
        return node.value

    return of(ast.parse(expression, mode="eval").body)


def steps(row: Row) -> int:
    return len(re.findall(r"[-+*]", row["expression"]))


def unseen(rows: Sequence[Row], trained: Sequence[Row]) -> float:
    """Share of rows whose template is in no training row."""
    known = {row["template"] for row in trained}
    return sum(row["template"] not in known for row in rows) / len(rows)


def readme_counts() -> dict[str, dict[str, int]]:
    """Task -> first cell -> count, of the tables with two columns of counts."""
    tables: dict[str, dict[str, int]] = {}
    current: dict[str, int] = {}
    for line in (DATA / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            current = tables.setdefault(line.strip("#` "), {})
        elif match := re.fullmatch(r"\| *([^|]+?) *\| *(\d+) *\| *(\d+) *\|", line.strip()):
            current |= {f"{part} {match[1]}": int(match[i]) for i, part in enumerate(PARTS, 2)}
    return tables


def test_the_files_are_what_the_generators_write() -> None:
    for name, text in files().items():
        assert (DATA / name).read_text(encoding="utf-8") == text, name


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("part", PARTS)
def test_each_file_has_its_rows_with_the_documented_keys(part: str, task: str) -> None:
    rows = load(part, task)
    assert len(rows) == ROWS[part]
    for row in rows:
        assert list(row) == KEYS[task]
        assert all(isinstance(text, str) and text.strip() == text != "" for text in row.values())


@pytest.mark.parametrize("task", TASKS)
def test_no_prompt_stands_twice(task: str) -> None:
    counts = Counter(row["prompt"] for row in both(task))
    assert [prompt for prompt, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("task", TASKS)
def test_half_of_the_evaluation_rows_come_from_templates_without_training_rows(task: str) -> None:
    assert unseen(load("eval", task), load("train", task)) == 0.5


def test_each_answer_stands_in_its_text_once_and_not_in_the_question() -> None:
    for row in both("extraction"):
        text, question = row["prompt"].split("\n\n")
        assert count_of(row["answer"], text) == 1, row
        assert text.casefold().count(row["answer"].casefold()) == 1, row
        assert count_of(row["answer"], question) == 0, row
        assert question.endswith("?"), row


def test_texts_and_answers_have_the_documented_lengths() -> None:
    for row in both("extraction"):
        assert 20 <= len(row["prompt"].split("\n\n")[0].split()) <= 80, row
        assert 1 <= len(row["answer"].split()) <= 8, row


def test_no_values_are_in_both_extraction_files_but_days() -> None:
    def stated(rows: Sequence[extraction.Extraction]) -> set[str]:
        return set().union(*(row.values for row in rows))

    train, held_out = extraction.train_rows(), extraction.eval_rows()
    days = set(VALUES["day"])
    assert stated(train) & stated(held_out) <= days
    combinations = [row.values for row in (*train, *held_out)]
    assert len(set(combinations)) == len(combinations)


def test_no_answer_of_training_but_days_stands_in_an_evaluation_text() -> None:
    answers = {row["answer"] for row in load("train", "extraction") if row["kind"] != "day"}
    texts = [row["prompt"] for row in load("eval", "extraction")]
    assert [(a, text) for a in answers for text in texts if count_of(a, text)] == []


def test_most_evaluation_texts_contain_a_wrong_answer_of_the_same_kind() -> None:
    rows = load("eval", "extraction")
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(row["kind"], set()).add(row["answer"])
    misled = [
        any(count_of(other, row["prompt"]) for other in answers[row["kind"]] - {row["answer"]})
        for row in rows
    ]
    assert sum(misled) / len(rows) > 0.6


def test_each_word_problem_has_the_value_of_its_expression() -> None:
    for row in both("word_problems"):
        assert row["kind"] == "number"
        assert row["answer"] == str(value(row["expression"])), row
        assert 1 <= int(row["answer"]) <= 30, row


def test_the_numbers_of_a_word_problem_are_those_of_its_expression() -> None:
    for row in both("word_problems"):
        stated, used = (re.findall(r"\d+", row[key]) for key in ("prompt", "expression"))
        assert sorted(stated) == sorted(used), row


@pytest.mark.parametrize("part", PARTS)
def test_word_problems_have_one_to_three_steps_and_most_have_one(part: str) -> None:
    counts = Counter(steps(row) for row in load(part, "word_problems"))
    assert set(counts) == {1, 2, 3}
    assert counts[1] == ROWS[part] * 2 / 3


def test_no_calculation_is_in_both_files_of_word_problems() -> None:
    def calculations(part: str) -> set[tuple[str, ...]]:
        rows = load(part, "word_problems")
        return {(*sorted(re.findall(r"\d+", r["expression"])), "=", r["answer"]) for r in rows}

    assert calculations("train") & calculations("eval") == set()


def test_no_number_between_the_steps_is_negative() -> None:
    for problem in chain(word_problems.train_rows(), word_problems.eval_rows()):
        terms = problem.expression.split(" ")
        for end in range(1, len(terms) + 1, 2):
            assert value(" ".join(terms[:end])) >= 0, problem


def test_readme_counts() -> None:
    tables = readme_counts()
    for task, key in (("extraction", "kind"), ("word_problems", "template")):
        expected = {
            f"{part} {name}": count
            for part in PARTS
            for name, count in Counter(row[key] for row in load(part, task)).items()
        }
        found = {name: count for name, count in tables[task].items() if count}
        assert found == expected, task


def test_the_check_of_answers_counts_whole_words() -> None:
    assert count_of("9:15", "At 19:15 or 9:15.") == 1
    assert count_of("desk lamp", "A desk, a lamp, a desk lamp.") == 1
    assert value("2 + 3 * 4 - 1") == 13

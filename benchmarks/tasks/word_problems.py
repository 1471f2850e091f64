"""Word problems of one to three steps with small whole numbers."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from tasks.word_problem_templates import MORE_STEPS, ONE_STEP, PEOPLE, THINGS, Problem

TRAIN_ROWS, EVAL_ROWS = 300, 150
ONE_STEP_OF_THREE = 2
"""Of three rows, so many have one step."""

Fact = tuple[tuple[int, ...], int]


@dataclass(frozen=True)
class WordProblem:
    """A story with numbers."""

    problem: Problem
    prompt: str
    expression: str
    answer: int
    numbers: tuple[int, ...]

    @property
    def fact(self) -> Fact:
        """Numbers in any order, and the answer: what two rows about the same sum share."""
        return tuple(sorted(self.numbers)), self.answer

    def row(self) -> dict[str, str]:
        """The line of the data file."""
        return {
            "prompt": self.prompt,
            "answer": str(self.answer),
            "kind": "number",
            "template": self.problem.name,
            "expression": self.expression,
        }


def both_files() -> tuple[list[WordProblem], list[WordProblem]]:
    """(training rows, evaluation rows). No calculation is in both; half of the evaluation rows
    come from templates that training does not see."""
    used: set[str] = set()
    rows = _rows("eval", [_chosen(False), _chosen(True)], EVAL_ROWS, used, frozenset())
    reserved = frozenset(row.fact for row in rows)
    return _rows("train", [_chosen(False)], TRAIN_ROWS, used, reserved), rows


def _chosen(eval_only: bool) -> Iterator[Problem]:
    """Templates without end, in the intended ratio of steps."""
    one, more = (
        cycle([problem for problem in problems if problem.eval_only == eval_only])
        for problems in (ONE_STEP, MORE_STEPS)
    )
    while True:
        yield from (next(one) for _ in range(ONE_STEP_OF_THREE))
        yield next(more)


def _rows(
    split: str,
    sources: Sequence[Iterator[Problem]],
    count: int,
    used: set[str],
    reserved: frozenset[Fact],
) -> list[WordProblem]:
    """As many rows from each source; no prompt in ``used``, no calculation in ``reserved``."""
    draw = random.Random(f"word problems {split}")
    rows: list[WordProblem] = []
    for source, _ in zip(cycle(sources), range(count), strict=False):
        drawn = _drawn(next(source), draw)
        row = next(
            row
            for row in drawn
            if row.answer > 0 and row.prompt not in used and row.fact not in reserved
        )
        used.add(row.prompt)
        rows.append(row)
    draw.shuffle(rows)
    return rows


def _drawn(problem: Problem, draw: random.Random) -> Iterator[WordProblem]:
    """The problem with other numbers and names each time."""
    while True:
        numbers = {name: draw.randint(*between) for name, between in problem.ranges.items()}
        person, person2 = draw.sample(PEOPLE, 2)
        words = {"person": person, "person2": person2, "things": draw.choice(THINGS)}
        yield WordProblem(
            problem,
            problem.story.format(**words, **numbers),
            problem.expression.format(**numbers),
            problem.solution(**numbers),
            tuple(numbers.values()),
        )

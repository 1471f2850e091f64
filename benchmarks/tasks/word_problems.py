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

    @property
    def for_evaluation(self) -> bool:
        """Whether the calculation belongs to evaluation; about two of five do, chosen by chance."""
        return random.Random(str(self.fact)).random() < 0.4

    def row(self) -> dict[str, str]:
        """The line of the data file."""
        return {
            "prompt": self.prompt,
            "answer": str(self.answer),
            "kind": "number",
            "template": self.problem.name,
            "expression": self.expression,
        }


def train_rows() -> list[WordProblem]:
    """Rows of the templates that are not kept for evaluation."""
    return _rows("train", [_chosen(eval_only=False)], TRAIN_ROWS)


def eval_rows() -> list[WordProblem]:
    """Half of the rows from templates that training does not see; no calculation of training."""
    return _rows("eval", [_chosen(eval_only=False), _chosen(eval_only=True)], EVAL_ROWS)


def _chosen(eval_only: bool) -> Iterator[Problem]:
    """Templates without end, in the intended ratio of steps."""
    one, more = (
        cycle([problem for problem in problems if problem.eval_only == eval_only])
        for problems in (ONE_STEP, MORE_STEPS)
    )
    while True:
        yield from (next(one) for _ in range(ONE_STEP_OF_THREE))
        yield next(more)


def _rows(split: str, sources: Sequence[Iterator[Problem]], count: int) -> list[WordProblem]:
    """As many rows from each source; no prompt twice."""
    draw = random.Random(f"word problems {split}")
    rows: dict[str, WordProblem] = {}
    for source, _ in zip(cycle(sources), range(count), strict=False):
        row = next(
            row
            for row in _drawn(next(source), draw)
            if row.answer > 0 and row.for_evaluation == (split == "eval") and row.prompt not in rows
        )
        rows[row.prompt] = row
    shuffled = list(rows.values())
    draw.shuffle(shuffled)
    return shuffled


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

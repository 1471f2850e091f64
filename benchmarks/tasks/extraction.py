"""Extraction: a short text and a question whose answer stands in it, exactly once."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from string import Formatter

from tasks.extraction_templates import CLOSING_SENTENCES, TEMPLATES, VALUES, Template

TRAIN_ROWS, EVAL_ROWS = 300, 150
SHARED_KINDS = ("day",)
"""Kinds with too few values to divide between training and evaluation."""
ORDERED_KINDS = ("day", "time", "date", "amount")
"""The later or larger value stands in the gap with the higher number."""
MOST_EVAL_VALUES = 6
"""Of a kind. Few, so that most of the values in a text also are answers of other rows: whoever
repeats the whole text then gives several answers, and evaluation counts that as wrong."""


@dataclass(frozen=True)
class Extraction:
    """A text, a question, and the span that answers it."""

    template: Template
    text: str
    question: str
    answer: str
    kind: str
    values: frozenset[str]
    """All values in the text."""

    def row(self) -> dict[str, str]:
        """The line of the data file; the answers of a kind are each other's wrong answers."""
        return {
            "prompt": f"{self.text}\n\n{self.question}",
            "answer": self.answer,
            "kind": self.kind,
            "template": self.template.name,
        }


def train_rows() -> list[Extraction]:
    """Texts of the templates that are not kept for evaluation."""
    shared = [template for template in TEMPLATES if not template.eval_only]
    return _rows("train", [shared], TRAIN_ROWS)


def eval_rows() -> list[Extraction]:
    """Half of the texts from templates that training does not see."""
    shared = [template for template in TEMPLATES if not template.eval_only]
    unseen = [template for template in TEMPLATES if template.eval_only]
    return _rows("eval", [shared, unseen], EVAL_ROWS)


def _rows(split: str, sources: Sequence[Sequence[Template]], count: int) -> list[Extraction]:
    """As many rows from each source; no two of them with the same values."""
    draw = random.Random(f"extraction {split}")
    turns = cycle([_questions(source) for source in sources])
    rows: list[Extraction] = []
    used: set[frozenset[str]] = set()
    for questions, _ in zip(turns, range(count), strict=False):
        template, gap, question = next(questions)
        row = next(row for row in _drawn(template, gap, question, split, draw) if _fits(row, used))
        used.add(row.values)
        rows.append(row)
    draw.shuffle(rows)
    return rows


def _questions(templates: Sequence[Template]) -> Iterator[tuple[Template, str, str]]:
    """All questions without end, each template's first question before any second one."""
    longest = max(len(template.questions) for template in templates)
    return cycle(
        (template, *template.questions[i])
        for i in range(longest)
        for template in templates
        if i < len(template.questions)
    )


def _drawn(
    template: Template, gap: str, question: str, split: str, draw: random.Random
) -> Iterator[Extraction]:
    """The question with other values each time."""
    gaps = list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template.text) if name))
    while True:
        filled = _filled(gaps, split, draw)
        closing = draw.sample(CLOSING_SENTENCES, draw.randrange(3))
        text = " ".join([template.text.format(**filled), *closing])
        yield Extraction(
            template, text, question, filled[gap], kind_of(gap), frozenset(filled.values())
        )


def _filled(gaps: Sequence[str], split: str, draw: random.Random) -> dict[str, str]:
    """A different value for each gap."""
    filled: dict[str, str] = {}
    for kind in dict.fromkeys(map(kind_of, gaps)):
        of_kind = [gap for gap in gaps if kind_of(gap) == kind]
        values = pool(kind, split)
        places = draw.sample(range(len(values)), len(of_kind))
        if kind in ORDERED_KINDS:
            of_kind, places = sorted(of_kind), sorted(places)
        filled |= zip(of_kind, (values[place] for place in places), strict=True)
    return filled


def _fits(row: Extraction, used: set[frozenset[str]]) -> bool:
    """Whether the answer stands in the text once, and the values are new."""
    once = row.text.casefold().count(row.answer.casefold()) == 1
    return once and row.values not in used


def kind_of(gap: str) -> str:
    """The kind of value in a gap."""
    return gap.rstrip("0123456789")


def pool(kind: str, split: str) -> Sequence[str]:
    """The values of a kind that may stand in a text of the split."""
    if kind in SHARED_KINDS:
        return VALUES[kind]
    return VALUES[kind][1::2][:MOST_EVAL_VALUES] if split == "eval" else VALUES[kind][::2]

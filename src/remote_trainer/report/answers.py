"""The answers to held-out rows before and after training, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remote_trainer.report.texts import shown

Line = Mapping[str, Any]

MOST_OF_A_KIND = 4


@dataclass(frozen=True)
class Answer:
    """The greedy answer of one side."""

    text: str
    verdict: str
    """right or wrong; empty without a reference."""
    sampled: str
    """How many of the sampled answers are right; empty without a reference."""


@dataclass(frozen=True)
class AnsweredQuestion:
    """One held-out row."""

    prompt: str
    reference: str
    before: Answer
    after: Answer


@dataclass(frozen=True)
class AnswerTable:
    """Some held-out rows: first those that became wrong, then those that became right."""

    shown: Sequence[AnsweredQuestion]
    total: int
    became_right: int
    became_wrong: int


def answer_table(lines: Sequence[Line]) -> AnswerTable:
    """The first rows of each kind, of the lines of answers.jsonl."""
    lost = [line for line in lines if _rights(line) == (True, False)]
    gained = [line for line in lines if _rights(line) == (False, True)]
    same = [line for line in lines if len(set(_rights(line))) == 1]
    shown = [line for kind in (lost, gained, same) for line in kind[:MOST_OF_A_KIND]]
    return AnswerTable([_question(line) for line in shown], len(lines), len(gained), len(lost))


def _rights(line: Line) -> tuple[bool | None, bool | None]:
    return line["before"]["greedy"]["right"], line["after"]["greedy"]["right"]


def _question(line: Line) -> AnsweredQuestion:
    prompt = line["prompt"]
    return AnsweredQuestion(
        shown(prompt if isinstance(prompt, str) else str(prompt[-1]["content"])),
        shown(" or ".join(line["references"])),
        _answer(line["before"]),
        _answer(line["after"]),
    )


def _answer(side: Line) -> Answer:
    greedy, sampled = side["greedy"], side["sampled"]
    if greedy["right"] is None:
        return Answer(shown(greedy["text"]), "", "")
    right = sum(each["right"] for each in sampled)
    verdict = "right" if greedy["right"] else "wrong"
    return Answer(
        shown(greedy["text"]), verdict, f"{right} of {len(sampled)} sampled answers right"
    )

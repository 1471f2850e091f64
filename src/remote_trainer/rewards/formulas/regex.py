"""Text reward: a pattern that the completion must match."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Plan, RewardConfig


def compiles(pattern: str) -> str:
    """``pattern``; raises ValueError if it is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(compiles)]


class Regex(RewardConfig):
    """1 if the completion matches a pattern, else 0: for output formats.

    Formula: r = 1 if `pattern` is found in the completion (`match: search`) or is all of it
    (`match: fullmatch`), else 0. Python's `re`; the text includes a thinking block.

    Range: {0, 1}; empty or truncated gets 0.

    Cost: no forward pass.

    Source: the format rewards of DeepSeek-R1 (arXiv 2501.12948).

    Known failure: text without content can match, too; use it beside another reward.
    """

    type: Literal["regex"] = "regex"
    """This reward."""
    pattern: Pattern
    """Regular expression in Python's syntax."""
    match: Literal["search", "fullmatch"] = "search"
    """`search`: anywhere in the completion; `fullmatch`: the whole completion."""

    @property
    def exceptions(self) -> dict[str, str]:
        return {
            "P3": "the pattern decides what junk is",
            "P7": "only the completion counts",
        }

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        text = sample.completion_text
        match = re.search if self.match == "search" else re.fullmatch
        return Plan.constant(float(match(self.pattern, text) is not None))

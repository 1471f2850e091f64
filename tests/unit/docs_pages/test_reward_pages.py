"""The pages of the catalogue: complete, out of the classes, and true in their numbers."""

import re

import pytest
from pydantic import BaseModel, Field

from remote_trainer.docs_pages.reward_pages import (
    DEFAULTS,
    SECTIONS,
    Option,
    exception_lines,
    markdown_table,
    options_of,
    parse_docstring,
    reward_page,
    rewards_reference,
)
from remote_trainer.errors import UserInputError
from remote_trainer.rewards import REWARDS
from remote_trainer.rewards.properties import PROPERTIES
from remote_trainer.rewards.self_test import ROWS
from remote_trainer.trainer.groups import WARM_UP_UPDATES

DOCSTRING = """One line.

    Formula: r = 1, over two
    lines.

    It goes on.

    Range: {1}.

    Cost: none.

    Source: here; Range: is no heading inside a line.

    Known failure: all.
    """


def test_a_docstring_becomes_sections_of_one_line() -> None:
    assert parse_docstring("x", DOCSTRING) == {
        "summary": "One line.",
        "Formula": "r = 1, over two lines. It goes on.",
        "Range": "{1}.",
        "Cost": "none.",
        "Source": "here; Range: is no heading inside a line.",
        "Known failure": "all.",
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_a_docstring_without_a_section_is_refused(section: str) -> None:
    text = DOCSTRING.replace(f"    {section}:", "    Else:")
    with pytest.raises(ValueError, match=f"reward x: its docstring has no {section}; write"):
        parse_docstring("x", text)


def test_every_missing_part_is_named() -> None:
    with pytest.raises(ValueError, match=f"has no summary, {', '.join(SECTIONS)}; write"):
        parse_docstring("x", "")
    with pytest.raises(ValueError, match="has no Cost; write"):
        parse_docstring("x", DOCSTRING.replace("Cost: none.", "Cost:"))


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_has_a_whole_page(name: str) -> None:
    page = reward_page(name)
    assert all((page.summary, page.formula, page.range, page.cost, page.source, page.failure))
    assert all(option.meaning for option in page.options)
    assert {number for reasons in page.exceptions.values() for number in reasons} <= {*PROPERTIES}


def test_a_reward_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserInputError, match="unknown reward 'tokenf1'; did you mean 'token_"):
        reward_page("tokenf1")
    with pytest.raises(UserInputError, match="'zzz'; rewards: inverse_loss, supervised, "):
        reward_page("zzz")


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("inverse_loss", "nothing"),
        ("supervised", "reference answer"),
        ("majority_vote", "whole group"),
        ("regex", "nothing"),  # has a key that must be written
        ("length_limit", "reference answer"),
    ],
)
def test_needs_come_from_the_class(name: str, needs: str) -> None:
    assert reward_page(name).needs == needs


def test_a_cost_in_brief_is_its_first_part() -> None:
    assert reward_page("supervised").cost_in_brief == (
        "one forward pass over prompt, completion and answer"
    )
    assert "(" not in reward_page("inverse_loss").cost_in_brief


def test_options_are_the_own_ones_and_those_with_another_default() -> None:
    assert [option.name for option in reward_page("token_f1").options] == []
    assert [option.name for option in reward_page("repetition").options] == ["n"]
    gate, function, range_ = reward_page("function").options
    assert (gate.name, gate.default) == ("gate", "[]")
    assert (function.name, function.default) == ("function", None)
    assert (range_.name, range_.default) == ("range", "null")
    formula = reward_page("inverse_loss").options[0]
    assert formula.meaning.endswith(" One of `mean_logprob`, `original`.")


def test_exceptions_of_other_options_are_said_with_the_option() -> None:
    exceptions = reward_page("supervised").exceptions
    assert list(exceptions) == [
        DEFAULTS,
        "formula: coverage_ce",
        "formula: coverage_information",
        "formula: original",
        "alignment: positional",
    ]
    assert list(exceptions[DEFAULTS]) == ["P2", "P21"]
    assert list(exceptions["formula: coverage_ce"]) == ["P17"]
    assert list(exceptions["alignment: positional"]) == ["P6", "P16"]
    lines = exception_lines(reward_page("supervised"))
    assert lines[0].startswith(f"P2 ({PROPERTIES['P2']}): ")
    assert lines[4] == "with `formula: original`: all properties: the originally published formula"


class Inner(BaseModel):
    key: float = Field(default=0.5, description="A number.")


class Outer(BaseModel):
    made: list[int] = Field(default_factory=lambda: [1], description="Made\nanew.")
    inner: Inner = Inner()


def test_options_show_factories_and_sections_inside() -> None:
    assert list(options_of(Outer)) == [
        Option("made", "[1]", "Made anew."),
        Option("inner.key", "0.5", "A number."),
    ]


def test_a_bar_in_a_table_does_not_end_its_cell() -> None:
    assert markdown_table(("a", "b"), [("1|2", "3")]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n"


def test_the_page_has_a_section_per_reward_and_a_row_per_property() -> None:
    text = rewards_reference()
    sections = re.findall(r"^## (\S+)$", text, re.MULTILINE)
    assert [name for name in sections if name in REWARDS] == list(REWARDS)
    rows = dict(re.findall(r"^\| (P\d+) \| .* \| (.*) \|$", text, re.MULTILINE))
    assert list(rows) == list(PROPERTIES)
    assert rows["P16"].startswith("`supervised` with `alignment: positional`: compared position")
    assert "`random` (the reward is random)" in text
    assert "`random`" not in "".join(rows.values())
    assert "COMMON_OPTIONS" not in text
    assert "EVERYTHING" not in text


def test_every_table_row_has_the_cells_of_its_head() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", rewards_reference(), re.MULTILINE):
        bars = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(bars) == 1, table


def test_numbers_in_the_hand_written_part_are_those_of_the_code() -> None:
    text = " ".join(rewards_reference().split())
    assert f"at most {ROWS} training rows" in text
    assert WARM_UP_UPDATES == 5
    assert "from the sixth update on" in text

"""The reward catalogue, generated from the classes: docs/rewards.md and ``rewards NAME``."""

import difflib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from remote_trainer.docs_pages.reward_texts import CATALOGUE_TEXT, GENERAL_TEXT, PROPERTIES_TEXT
from remote_trainer.errors import UserInputError
from remote_trainer.metrics import METRICS
from remote_trainer.rewards.base import RewardConfig
from remote_trainer.rewards.properties import PROPERTIES
from remote_trainer.rewards.registry import REWARDS

SECTIONS = ("Formula", "Range", "Cost", "Source", "Known failure")
ABOUT_SIGNAL = (
    "floored_share",
    "unjudged_share",
    "filtered_share",
    "skipped_share",
    "rewards",
    "scores_from",
)
"""Keys of metrics.jsonl that the page explains."""
DEFAULTS = ""
"""The setting under which a page's exceptions are those of the default options."""


@dataclass(frozen=True)
class Option:
    """One option; ``default`` in YAML syntax, None if there is no default."""

    name: str
    default: str | None
    meaning: str


@dataclass(frozen=True)
class RewardPage:
    """The page of one reward; ``needs`` applies to the default options."""

    name: str
    summary: str
    formula: str
    range: str
    cost: str
    needs: str
    source: str
    failure: str
    options: tuple[Option, ...]
    """Its own options, and common ones with another default."""
    exceptions: Mapping[str, Mapping[str, str]]
    """Setting (`DEFAULTS`, or for instance ``alignment: positional``) -> property -> reason."""

    @property
    def cost_in_brief(self) -> str:
        """The first part of ``cost``, without text in parentheses."""
        return re.sub(r" \([^)]*\)", "", self.cost).partition(";")[0].rstrip(".")


def reward_page(name: str) -> RewardPage:
    """The page of one reward; UserInputError if it does not exist."""
    if name not in REWARDS:
        close = difflib.get_close_matches(name, REWARDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"rewards: {', '.join(REWARDS)}"
        raise UserInputError.at("", f"unknown reward {name!r}; {hint}")
    kind = REWARDS[name]
    texts = parse_docstring(name, inspect.getdoc(kind) or "")
    return RewardPage(
        name=name,
        summary=texts["summary"],
        formula=texts["Formula"],
        range=texts["Range"],
        cost=texts["Cost"],
        needs=_needs(kind.model_construct()),
        source=texts["Source"],
        failure=texts["Known failure"],
        options=own_options(kind),
        exceptions=_exceptions(kind),
    )


def parse_docstring(name: str, text: str) -> dict[str, str]:
    """The ``summary`` and each of `SECTIONS`, one line each; ValueError if one is missing."""
    headings = "|".join(SECTIONS)
    summary, *rest = re.split(rf"\n\n({headings}):", "\n\n" + inspect.cleandoc(text))
    found = {"summary": summary, **dict(zip(rest[::2], rest[1::2], strict=True))}
    found = {section: " ".join(words.split()) for section, words in found.items()}
    missing = [section for section in ("summary", *SECTIONS) if not found.get(section)]
    if missing:
        raise ValueError(
            f"reward {name}: its docstring has no {', '.join(missing)}; write a first line and "
            f"paragraphs that begin with {', '.join(f'{section}:' for section in SECTIONS)}"
        )
    return found


def options_of(settings: type[BaseModel], prefix: str = "") -> Iterator[Option]:
    """Every key of a section; those of a section inside it as ``inner.key``."""
    for name, field in settings.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from options_of(inner, f"{prefix}{name}.")
        else:
            yield Option(prefix + name, _default(field), _meaning(field))


def own_options(kind: type[RewardConfig]) -> tuple[Option, ...]:
    """Options of one reward that the other rewards do not have, or have with another default."""
    common = set(options_of(RewardConfig))
    return tuple(o for o in options_of(kind) if o.name != "type" and o not in common)


def options_table(options: Iterable[Option]) -> str:
    """A Markdown table of options."""
    return markdown_table(
        ("key", "default", "meaning"),
        [
            (
                f"`{option.name}`",
                "(required)" if option.default is None else f"`{option.default}`",
                option.meaning,
            )
            for option in options
        ],
    )


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of a Markdown table, each with a line end."""
    lines = [head, ["---"] * len(head), *([c.replace("|", "\\|") for c in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rewards_reference() -> str:
    """The whole of docs/rewards.md."""
    pages = [reward_page(name) for name in REWARDS]
    general = GENERAL_TEXT.replace("COMMON_OPTIONS\n", options_table(options_of(RewardConfig)))
    signal = [(f"`{key}`", METRICS[key].explained) for key in ABOUT_SIGNAL]
    general = general.replace("METRICS_OF_SIGNAL\n", markdown_table(("key", "meaning"), signal))
    parts = [general, _summary(pages), *map(_section, pages), _properties(pages)]
    return "\n".join(parts)


def _default(field: FieldInfo) -> str | None:
    value = field.get_default(call_default_factory=True)
    return None if value is PydanticUndefined else json.dumps(value)


def _meaning(field: FieldInfo) -> str:
    text = (field.description or "").replace("\n", " ")
    choices = _choices(field)
    if len(choices) < 2:
        return text
    return f"{text} One of {', '.join(f'`{_as_written(choice)}`' for choice in choices)}."


def _choices(field: FieldInfo) -> tuple[Any, ...]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def _as_written(choice: Any) -> str:
    return choice if isinstance(choice, str) else json.dumps(choice)


def _needs(reward: RewardConfig) -> str:
    needs = ["reference answer"] if reward.needs_answer else []
    needs += ["whole group"] if reward.needs_group else []
    return ", ".join(needs) or "nothing"


def _exceptions(kind: type[RewardConfig]) -> dict[str, dict[str, str]]:
    """Of the default options, and of each choice of an option that changes them."""
    default = kind.model_construct().exceptions
    found = {DEFAULTS: default} if default else {}
    for name, field in kind.model_fields.items():
        for choice in _choices(field):
            changed = kind.model_construct(**{name: choice}).exceptions
            if changed != default:
                found[f"{name}: {_as_written(choice)}"] = changed
    return found


def _summary(pages: Sequence[RewardPage]) -> str:
    rows = [(f"[{p.name}](#{p.name})", p.summary, p.needs, p.cost_in_brief) for p in pages]
    return CATALOGUE_TEXT + "\n" + markdown_table(("reward", "what it is", "needs", "cost"), rows)


def _section(page: RewardPage) -> str:
    texts = [
        ("Formula", page.formula),
        ("Range", page.range),
        ("Needs", f"{page.needs}."),
        ("Cost", page.cost),
        ("Source", page.source),
        ("Known failure", page.failure),
    ]
    parts = [f"## {page.name}", page.summary, *(f"**{name}:** {text}" for name, text in texts)]
    exceptions = exception_lines(page)
    if exceptions:
        parts += ["**Exceptions** from the [properties](#properties):"]
        parts += ["\n".join(f"- {line}" for line in exceptions)]
    parts.append(options_table(page.options) if page.options else "No options of its own.\n")
    return "\n\n".join(parts)


def exception_lines(page: RewardPage) -> list[str]:
    """One line per property that does not hold: its text and the reason."""
    lines = []
    for setting, exceptions in page.exceptions.items():
        where = f"with `{setting}`: " if setting != DEFAULTS else ""
        if _promises_nothing(exceptions):
            lines.append(f"{where}all properties: {exceptions['P1']}")
            continue
        lines += [f"{where}{n} ({PROPERTIES[n]}): {reason}" for n, reason in exceptions.items()]
    return lines


def _promises_nothing(exceptions: Mapping[str, str]) -> bool:
    return set(exceptions) == set(PROPERTIES)


def _properties(pages: Sequence[RewardPage]) -> str:
    """P1 to P21 with their exceptions; rewards that guarantee none are listed above the table."""
    everything: list[str] = []
    excepted: dict[str, list[str]] = {number: [] for number in PROPERTIES}
    for page in pages:
        for setting, exceptions in page.exceptions.items():
            who = f"`{page.name}`" + (f" with `{setting}`" if setting != DEFAULTS else "")
            if _promises_nothing(exceptions):
                everything.append(f"{who} ({exceptions['P1']})")
                continue
            for number, reason in exceptions.items():
                excepted[number].append(f"{who}: {reason}")
    rows = [(n, text, "; ".join(excepted[n])) for n, text in PROPERTIES.items()]
    intro = PROPERTIES_TEXT.replace("EVERYTHING", ", ".join(everything))
    return intro + "\n" + markdown_table(("", "property", "exceptions"), rows)

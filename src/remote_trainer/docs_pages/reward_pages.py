"""The catalogue as pages, out of the classes themselves: docs/rewards.md and ``rewards NAME``."""

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
"""Keys of metrics.jsonl that the page tells of."""
DEFAULTS = ""
"""The setting under which a page's exceptions are those of the default options."""


@dataclass(frozen=True)
class Option:
    """One key that can be written; ``default`` as YAML reads it, None where there is none."""

    name: str
    default: str | None
    meaning: str


@dataclass(frozen=True)
class RewardPage:
    """What is known about one reward; ``needs`` holds for the default options."""

    name: str
    summary: str
    formula: str
    range: str
    cost: str
    needs: str
    source: str
    failure: str
    options: tuple[Option, ...]
    """Its own ones, and common ones whose default differs here."""
    exceptions: Mapping[str, Mapping[str, str]]
    """Setting (`DEFAULTS`, or for instance ``alignment: positional``) -> property -> reason."""

    @property
    def cost_in_brief(self) -> str:
        """The first part of ``cost``, without what stands in parentheses."""
        return re.sub(r" \([^)]*\)", "", self.cost).partition(";")[0].rstrip(".")


def reward_page(name: str) -> RewardPage:
    """The page of one reward of the catalogue; UserInputError where there is none."""
    if name not in REWARDS:
        close = difflib.get_close_matches(name, REWARDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(REWARDS)}"
        raise UserInputError.at("", f"no reward is called {name!r}; {hint}")
    kind = REWARDS[name]
    said = parse_docstring(name, inspect.getdoc(kind) or "")
    return RewardPage(
        name=name,
        summary=said["summary"],
        formula=said["Formula"],
        range=said["Range"],
        cost=said["Cost"],
        needs=_needs(kind.model_construct()),
        source=said["Source"],
        failure=said["Known failure"],
        options=own_options(kind),
        exceptions=_exceptions(kind),
    )


def parse_docstring(name: str, text: str) -> dict[str, str]:
    """The ``summary`` and each of `SECTIONS`, one line each; ValueError where one is missing."""
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
                "(must be written)" if option.default is None else f"`{option.default}`",
                option.meaning,
            )
            for option in options
        ],
    )


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of a Markdown table, with a line end behind each."""
    lines = [head, ["---"] * len(head), *([c.replace("|", "\\|") for c in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rewards_reference() -> str:
    """The whole of docs/rewards.md."""
    pages = [reward_page(name) for name in REWARDS]
    general = _GENERAL.replace("COMMON_OPTIONS\n", options_table(options_of(RewardConfig)))
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
    return _CATALOGUE + "\n" + markdown_table(("reward", "what it is", "needs", "cost"), rows)


def _section(page: RewardPage) -> str:
    said = [
        ("Formula", page.formula),
        ("Range", page.range),
        ("Needs", f"{page.needs}."),
        ("Cost", page.cost),
        ("Source", page.source),
        ("Known failure", page.failure),
    ]
    parts = [f"## {page.name}", page.summary, *(f"**{name}:** {text}" for name, text in said)]
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
    """P1 to P21 with the rewards they do not hold for; those that promise nothing stand above."""
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
    intro = _PROPERTIES.replace("EVERYTHING", ", ".join(everything))
    return intro + "\n" + markdown_table(("", "property", "exceptions"), rows)


_GENERAL = """# Rewards

Made from the code by `make docs`. `remote-trainer rewards` prints the same catalogue, and
`remote-trainer rewards NAME` one reward of it.

A reward is one number for one completion of one prompt; higher is better. What is asked of a model
are log-probabilities of token ids (natural logarithm, nats) at temperature 1.

## Common rules

- **Ids.** A sampled completion is scored as the ids that were sampled; it is never tokenised
  again. A completion that is given as text (`remote-trainer score`) is tokenised once.
- **Empty** means: no ids, or only white space, besides end-of-sequence. It gives the reward's
  minimum.
- **Truncated** means: the ids reached the limit (`training.max_completion_length`) and do not end
  in end-of-sequence. It gives the minimum, except with `truncated: score` of `inverse_loss`. A
  completion that is given as text is never truncated and gets no end-of-sequence.
- `random` and `function` follow these two rules only where their `gate` says so.
- **Cannot be judged.** A reward that needs a reference answer gives None for a row where the answer
  is missing, blank or no text, whatever the completion. The row is left out and counted. It never
  becomes 0.
- **Words** stand between blanks, without the punctuation around them, after NFKC and in lower case.
  Chinese, Japanese, Thai, Khmer, Lao and Burmese set no blanks: there every character with its
  marks is a word, and so is a run of Katakana and whatever else stands between such characters
  (是42。 is 是 and 42). Accuracy, the guard's probe and `training.keep: best` count words in the
  same way: an answer is right where it stands in the completion as whole words. Korean has blanks,
  so a particle belongs to its word: 서울입니다 is not 서울.
- **Not finite.** A NaN or infinite value stops the run. The message names the reward, the row, the
  prompt and the completion; of a function of yours its file and line.
- **`scored_by`.** `policy` is the model as it is, `reference` the same model with its adapter
  switched off. A model without an adapter is judged by itself, with one warning.

## Thinking blocks

Some tokenizers have a token each for `<think>` and `</think>`, or for `[THINK]` and `[/THINK]`.
For completions with such a block:

- `token_f1`, `chrf`, `exact_match`, `majority_vote` and `repetition` read only the text after the
  block; `length_limit` and the coverage of `supervised` count only the ids after it. If the block
  is never closed, nothing stands after it.
- `supervised` and `answer_likelihood` put connector and reference answer after the block. A block
  that prompt or completion leave open is closed first.
- `inverse_loss` and `self_certainty` measure all ids. `regex`, `function` and `gate` see the whole
  text.

## Options of every reward

COMMON_OPTIONS

`type` may be left out where `function` is written.

**gate.** A completion that fails one of the conditions gets the reward's minimum and is not
measured:

| condition | fails for |
| --- | --- |
| `ended` | truncated completions |
| `not_empty` | empty completions |
| `not_looping` | texts that end in one phrase said over and over |

`gate: true` is all three, `false` none, and a single name needs no list. `not_looping` is the
default, but `random` and `function` have no gate by default. Because empty completions always get
the minimum, and truncated ones nearly always, `ended` and `not_empty` make a difference only for
`random`, `function` and `inverse_loss` with `truncated: score`. `function` needs `range` to have a
gate, and `formula: original` ignores it.

A loop is what `remote_trainer.text_statistics.endless` says: the same ten words in a row (in
scripts without blanks 40 characters) occur ten times, or the text ends in a phrase that stands
there at least four times, over at least 40 characters and at least half of the text. `loop_share`
in metrics.jsonl follows a wider rule, which also counts text that compresses well.

## Several rewards

A list is summed by `weight`. Every part is logged under its type; a second one of a type is called
`<type>_2`. If one part cannot judge a row, the sum is None. If one part gives a floor, the whole
completion counts as invalid. Parts have different units (see their ranges), so choose weights that
bring them to a like size.

```yaml
reward:
  - {type: supervised, gate: true}
  - {type: length_limit, max_tokens: 64, weight: 0.2}
  - {type: inverse_loss, scored_by: reference, weight: 0.05, gate: [not_looping, not_empty]}
```

## What training makes of them

A **invalid** completion is one that was not measured: empty, truncated or stopped by a gate. The
others with a reward are measured. A group is all completions of one prompt.

- **Advantages.** A invalid completion keeps its reward in every report. For the advantages it
  stands with the worst measured completion of its group: its true floor may be so far away that
  all differences between the others would vanish, and standing further below it would teach
  little but to end soon ([learning.md](learning.md)). With fewer
  than two measured completions in the group, the rewards count as they are.
- **Spread** is the standard deviation of the measured rewards of a group (of the weighted sum).
  With fewer than two measured completions the floors count, too.
- **Filter.** A group trains only if its spread is above `training.group_filter.min_std` (default
  0.001). This is an absolute number in the reward's own units, so a small `weight` on the only
  reward brings groups under it. With `average_share` above 0 the spread must also be above this
  share of its running average, from the sixth update on. RLPR (arXiv 2506.18254) uses 0.5; the
  default is 0.
- **Without signal.** Groups that are filtered and completions that cannot be judged leave the loss,
  the KL term and the number that the loss is divided by. An update where nothing is left changes
  neither the weights nor the optimizer's moments; it still counts as an update. After three such
  updates in a row the log says so, once.

What metrics.jsonl says about it, per update or as the mean of `training.logging_steps` updates:

METRICS_OF_SIGNAL

**Numbers that exist already.** Sampling knows the log-probabilities of a completion under the
policy, and the KL term (`training.beta` above 0) those under the reference. `inverse_loss` asks for
just these numbers. `scoring.reuse` says whether they are used:

- `auto`: sampling's, if it runs the same weights in the same dtype as scoring; those of the KL
  term, if `generation.temperature` is 1; else, under the policy, those of the coming update, whose
  pass is then made before the rewards (one micro-step an update, temperature 1, no dropout, one
  process);
- `always`: the same, and sampling's in any case;
- `never`: each number costs a forward pass.

`generation.dtype: auto` samples in bfloat16 where the processor computes in it; `sampler_gap` in
metrics.jsonl is the mean distance in nats between the log-probabilities of the sampled ids then and
those of the weights that learn.

Where a field of `training.trl` changes how completions are sampled, TRL samples and keeps no
log-probabilities. With `mask_truncated_completions` those of the KL term are not used.

**Self-test.** At the start of training, at most 16 training rows that have an answer are judged
twice: with their own answer as the completion, and with the answer of another row. One line says
in how many rows the right answer scores higher, with a warning if it is half of them or fewer;
`reward_self_test` in data_report.json keeps it. Nothing is tested where no reward needs an answer,
and the result does not stop the run.

## formula: original

`inverse_loss` and `supervised` keep, for comparison, the expression they were first published
with. Its faults: a negative loss times a coverage below 1 *rewards* missing text, so the empty
answer wins; token counts are off by one on tokenizers that add BOS; text is tokenised again; the
supervised score never sees the prompt. The program warns when it is used.

## Adding a reward

In this project: one file in `src/remote_trainer/rewards/` with a subclass of `RewardConfig`, one
line in `catalogue.py`, one test. The fields of the class are the options, `plan` is the formula,
and the docstring becomes a section of this page (`make docs`).

Without touching it: `function` names a reward function as TRL's GRPOTrainer takes it. It is called
with `prompts`, `completions`, `completion_ids` and the keys of the data rows, each a list, and
returns one number or None per completion. `check`, `score` and `train` import its module.

```yaml
reward:
  function: my_rewards:short_and_polite     # my_rewards.py in the working directory
  range: [0, 1]
  gate: [ended, not_looping]
```
"""

_CATALOGUE = """## Catalogue

What a reward needs is said for its default options; `length_limit` with `max_tokens` needs no
answer. The whole group means: all completions of a prompt in one call. Costs are given in brief.
"""

_PROPERTIES = """## Properties

What every reward of the catalogue promises with its default `gate` (and `truncated: floor`), and
who is excepted; the tests hold both, on small models made for it. What is said of right answers is
promised by rewards that need a reference answer. What is said of the model's answers (P8, P10 to
P13) concerns rewards that ask it.

These promise nothing at all: EVERYTHING.
"""

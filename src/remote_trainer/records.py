"""The nouns that travel between rooms: plain frozen records, no libraries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

TokenIds = tuple[int, ...]
Message = dict[str, str]
Prompt = str | list[Message]
Scorer = Literal["policy", "reference"]


@dataclass(frozen=True)
class Row:
    """One line of a data file, before any model is known."""

    prompt: Prompt
    fields: Mapping[str, Any]
    """Every other key of the line; handed on to reward functions under its own name."""
    source: str
    """``file:line``, for messages."""


@dataclass(frozen=True)
class EncodedRow:
    """A row with its prompt rendered once; these ids are the only form the model ever sees."""

    row: Row
    prompt_ids: TokenIds


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. ``temperature`` 0 means greedy decoding."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_new_tokens: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Generation:
    """One sampled completion: ids as sampled, with the end-of-sequence id when it was sampled."""

    ids: TokenIds
    logprobs: tuple[float, ...]
    """Log-probability in nats of each id at temperature 1, before top-p and top-k."""
    ended: bool


@dataclass(frozen=True)
class LogprobRequest:
    """Ask for log p(target_t | context, continuation_<t), one value per target, in nats.

    Usually ``target`` is ``continuation`` itself. Where they differ, targets are judged at the
    positions of the continuation: what the model would have said in place of each of its tokens.
    """

    context: TokenIds
    continuation: TokenIds
    target: TokenIds
    scored_by: Scorer = "policy"

    def __post_init__(self) -> None:
        if not self.context:
            raise ValueError("a log-probability needs at least one token of context")
        if len(self.continuation) + 1 < len(self.target):
            raise ValueError("each target needs a position: continuation is too short")


@dataclass(frozen=True)
class Sample:
    """One completion as a reward sees it: ids are the sampled ones, text is for messages only."""

    prompt_ids: TokenIds
    completion_ids: TokenIds
    """As sampled; holds the end-of-sequence id when it was sampled."""
    content_ids: TokenIds
    """``completion_ids`` without trailing end-of-sequence ids."""
    prompt_text: str
    completion_text: str
    truncated: bool
    """Reached the length limit without an end-of-sequence id; False where no limit is known."""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """No token, or only white space, besides end-of-sequence."""
        return not self.content_ids or not self.completion_text.strip()


class Encoder(Protocol):
    """Text to ids. The one thing a reward may ask of a tokenizer."""

    def __call__(self, text: str, *, special_tokens: bool = False) -> TokenIds:
        """Ids of ``text``; with ``special_tokens`` those the tokenizer adds by itself, too."""
        ...


@dataclass(frozen=True)
class Judgement:
    """What all configured rewards say of one completion; None = cannot be judged, never 0."""

    reward: float | None
    rewards: Mapping[str, float | None]


@dataclass(frozen=True)
class Rollout:
    """The completions of one update and what the rewards said, in generation order."""

    step: int
    prompts: Sequence[Prompt]
    completions: Sequence[str]
    completion_ids: Sequence[TokenIds]
    answers: Sequence[Any]
    judgements: Sequence[Judgement]
    ended: Sequence[bool]

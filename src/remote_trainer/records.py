"""What packages hand to each other: plain frozen records, no libraries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

TokenIds = tuple[int, ...]
Message = dict[str, Any]
Prompt = str | list[Message]
Tools = Sequence[Mapping[str, Any]]
"""Definitions of functions that a chat template tells the model of."""
Scorer = Literal["policy", "reference"]
Measure = Literal["logprob", "self_certainty"]


@dataclass(frozen=True)
class Row:
    """One line of a data file, before any model is known."""

    prompt: Prompt
    fields: Mapping[str, Any]
    """Every other key of the line; handed on to reward functions under its own name."""
    source: str
    """``file:line``, for messages."""
    tools: Tools | None = None
    """Definitions of functions, for the chat template."""


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
    dtype: str | None = None
    """What the model computes in meanwhile: ``auto`` (bfloat16 where the processor computes in
    it, else the model's own) or a torch dtype's name; None: the model's own."""


@dataclass(frozen=True)
class Generation:
    """One sampled completion: ids as sampled, with the end-of-sequence id when it was sampled."""

    ids: TokenIds
    logprobs: tuple[float, ...]
    """Log-probability in nats of each id at temperature 1, before top-p, top-k and any ban."""
    drawn_logprobs: tuple[float, ...]
    """The same at the temperature of sampling; greedy decoding: at 1."""
    ended: bool


@dataclass(frozen=True)
class ScoreRequest:
    """Ask a model for one number per target, in nats, at temperature 1.

    With p the model's distribution over V ids after ``context`` and ``continuation[:t]``:

    - logprob: log p(target[t]);
    - self_certainty: KL(uniform, p) = -mean_j log(V p_j), at least 0.

    Usually ``target`` is ``continuation`` itself. Where they differ, targets are judged at the
    positions of the continuation: what the model would have said in place of each of its tokens.
    """

    context: TokenIds
    continuation: TokenIds
    target: TokenIds
    scored_by: Scorer = "policy"
    measure: Measure = "logprob"

    def __post_init__(self) -> None:
        if not self.context:
            raise ValueError("a log-probability needs at least one token of context")
        if len(self.continuation) + 1 < len(self.target):
            raise ValueError("each target needs a position: continuation is too short")

    @classmethod
    def of(
        cls,
        context: TokenIds,
        target: TokenIds,
        scored_by: Scorer = "policy",
        measure: Measure = "logprob",
    ) -> Self:
        """The usual case: ``target`` follows ``context``."""
        return cls(context, target, target, scored_by, measure)

    @property
    def inputs(self) -> TokenIds:
        """Ids the model must see: everything in front of the last target."""
        return self.context + self.continuation[: len(self.target) - 1]


@dataclass(frozen=True)
class Continuation:
    """Ids whose log-probs are asked for, behind a context of at least one id."""

    context: TokenIds
    ids: TokenIds


@dataclass(frozen=True)
class Thinking:
    """Where a completion's thinking block ends, for models whose template has one."""

    length: int = 0
    """Content ids up to and including the end of the block."""
    answer_text: str | None = None
    """Text after the block; None where there is no block."""
    close_prompt: TokenIds = ()
    """Ids that close a block which the prompt leaves open."""
    close: TokenIds = ()
    """Ids that close a block which is still open behind the completion."""


@dataclass(frozen=True)
class Sample:
    """One completion as a reward sees it: ids are the sampled ones, text only where text counts."""

    prompt: Prompt
    prompt_ids: TokenIds
    prompt_text: str
    completion_ids: TokenIds
    """As sampled; holds the end-of-sequence id when it was sampled."""
    content_ids: TokenIds
    """``completion_ids`` without trailing end-of-sequence ids."""
    completion_text: str
    truncated: bool = False
    """Reached the length limit without an end-of-sequence id; False where no limit is known."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    """Where the row stands (``file:line``), for messages."""
    thinking: Thinking = Thinking()

    @property
    def empty(self) -> bool:
        """No token, or only white space, besides end-of-sequence."""
        return not self.content_ids or not self.completion_text.strip()

    @property
    def answer_ids(self) -> TokenIds:
        """What the completion says after its thinking block; all of it where there is none."""
        return self.content_ids[self.thinking.length :]

    @property
    def answer_text(self) -> str:
        """`answer_ids` as text."""
        if self.thinking.answer_text is None:
            return self.completion_text
        return self.thinking.answer_text


class Encoder(Protocol):
    """Text to ids. The one thing a reward may ask of a tokenizer."""

    def __call__(self, text: str, *, special_tokens: bool = False) -> TokenIds:
        """Ids of ``text``; with ``special_tokens`` those the tokenizer adds by itself, too."""
        ...


@dataclass(frozen=True)
class RewardResult:
    """What all configured rewards say of one completion; None = cannot be judged, never 0."""

    reward: float | None
    rewards: Mapping[str, float | None]
    invalid: bool = False
    """Empty, truncated or stopped by a gate: the reward is a floor, not a measurement."""


@dataclass(frozen=True)
class Rollout:
    """The completions of one update and what the rewards said, in generation order."""

    step: int
    prompts: Sequence[Prompt]
    completions: Sequence[str]
    completion_ids: Sequence[TokenIds]
    content_tokens: Sequence[int]
    """Lengths without end-of-sequence."""
    reference_tokens: Sequence[int | None]
    """Lengths of the reference answers; None where there is none."""
    answers: Sequence[Any]
    reward_results: Sequence[RewardResult]
    ended: Sequence[bool]
    in_loss: Sequence[bool]
    """False for completions of groups without signal, and for those that cannot be judged."""
    groups_filtered: float
    """Share of groups without signal, 0 to 1."""
    scores_from: Mapping[str, int]
    """How many numbers the rewards asked for came from where."""
    logged: Mapping[str, float | None] = field(default_factory=dict)
    """What reward functions of the user's told log_metric, averaged."""
    logged_rows: Sequence[Mapping[str, Any]] = ()
    """What they told log_extra, a mapping per completion; empty where they told nothing."""


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer to a held-out row, judged by the row's accepted answers."""

    text: str
    tokens: int
    """Its length with end-of-sequence."""
    right: float | None
    """1 if an accepted answer stands in it, else 0; None where the row has none."""
    exact: float | None
    """The same for the whole text."""


@dataclass(frozen=True)
class AnsweredRow:
    """What a model answered to a held-out row."""

    question: str
    """The same for rows that one text may answer."""
    greedy: JudgedAnswer
    sampled: Sequence[JudgedAnswer]
    reference_logprob: float | None
    """Nats per token of the reference answer; None where there is none."""
    rewards: Sequence[float | None]
    """Of each sampled answer; empty where no reward is configured."""


@dataclass(frozen=True)
class LoadSettings:
    """How a model is brought into memory."""

    dtype: str = "auto"
    """``auto`` (bfloat16 on CUDA, float32 on CPU) or a torch dtype's name."""
    load_in_4bit: bool = False
    """Quantise the weights to 4 bits while they are loaded."""
    trust_remote_code: bool = False
    max_tokens_per_batch: int = 8192
    """Most padded tokens that go through the model at once when scoring or generating."""
    chat_template_kwargs: dict[str, Any] | None = None
    max_seq_length: int = 2048
    """Most tokens of a row; engines that reserve memory for it want to know it early."""
    lora_rank: int = 16
    """Rank of the adapter to come, for the same reason."""
    gradient_checkpointing: bool = False
    seed: int = 0
    disable_dropout: bool = True
    """Switch the model's own dropout off; that of an adapter stays."""


@dataclass(frozen=True)
class AdapterSettings:
    """A LoRA adapter (arXiv 2106.09685) to train."""

    r: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]
    seed: int

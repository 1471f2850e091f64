"""Data types that packages share: plain frozen records without libraries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

from remote_trainer.final_answer import behind_thinking

TokenIds = tuple[int, ...]
Message = dict[str, Any]
Prompt = str | list[Message]
Tools = Sequence[Mapping[str, Any]]
"""Function definitions that a chat template passes to the model."""
Scorer = Literal["policy", "reference"]
Measure = Literal["logprob", "self_certainty"]


@dataclass(frozen=True)
class Row:
    """One line of a data file, independent of a model."""

    prompt: Prompt
    fields: Mapping[str, Any]
    """Every other key of the line; passed to reward functions under its name."""
    source: str
    """``file:line``, for messages."""
    tools: Tools | None = None
    """Function definitions for the chat template."""
    answer_pattern: str | None = None
    """Regular expression of the final answer in completions, with one group."""


@dataclass(frozen=True)
class EncodedRow:
    """A row with its prompt rendered once; the model only gets these ids."""

    row: Row
    prompt_ids: TokenIds
    prompt_text: str
    """The rendered text that the ids were made of."""


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. ``temperature`` 0 means greedy decoding."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_new_tokens: int = 0
    seed: int = 0
    earlier: tuple[TokenIds, ...] = ()
    """Prompts that earlier processes sample for: equal prompts get the random streams that they
    would get in a single process."""
    dtype: str | None = None
    """Data type while sampling: ``auto`` (bfloat16 if the processor supports it natively,
    otherwise the model's own) or the name of a torch dtype; None: the model's own."""


@dataclass(frozen=True)
class Generation:
    """One sampled completion: ids as sampled, with the end-of-sequence id when it was sampled."""

    ids: TokenIds
    logprobs: tuple[float, ...]
    """Log-probability in nats of each id at temperature 1, before top-p, top-k and any ban."""
    drawn_logprobs: tuple[float, ...]
    """The same at the sampling temperature; greedy decoding: at 1."""
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
        """Input ids of the model: everything before the last target."""
        return self.context + self.continuation[: len(self.target) - 1]


@dataclass(frozen=True)
class Continuation:
    """Ids whose log-probs are computed, after a context of at least one id."""

    context: TokenIds
    ids: TokenIds


@dataclass(frozen=True)
class Thinking:
    """Where a completion's thinking block ends, for models whose template has one."""

    length: int = 0
    """Content ids up to and including the end of the block."""
    answer_text: str | None = None
    """Text after the block; None without a block."""
    close_prompt: TokenIds = ()
    """Ids that close a block left open by the prompt."""
    close: TokenIds = ()
    """Ids that close a block left open by the completion."""


@dataclass(frozen=True)
class Sample:
    """One completion as input of a reward: the sampled ids, and text for text rewards."""

    prompt: Prompt
    prompt_ids: TokenIds
    prompt_text: str
    completion_ids: TokenIds
    """As sampled; holds the end-of-sequence id when it was sampled."""
    content_ids: TokenIds
    """``completion_ids`` without trailing end-of-sequence ids."""
    completion_text: str
    truncated: bool = False
    """Reached the length limit without an end-of-sequence id; False if the limit is unknown."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    """Location of the row (``file:line``), for messages."""
    thinking: Thinking = Thinking()
    answer_pattern: str | None = None
    """That of the row."""

    @property
    def empty(self) -> bool:
        """No token, or only white space, apart from end-of-sequence."""
        return not self.content_ids or not self.completion_text.strip()

    @property
    def answer_ids(self) -> TokenIds:
        """The ids after the thinking block; all ids without a block."""
        return self.content_ids[self.thinking.length :]

    @property
    def answer_text(self) -> str:
        """`answer_ids` as text. Where the tokenizer has no ids for it, a block is found by its
        tags in the text."""
        if self.thinking.answer_text is None:
            return behind_thinking(self.completion_text)
        return self.thinking.answer_text


class Encoder(Protocol):
    """Text to ids: the only use of a tokenizer in rewards."""

    def __call__(self, text: str, *, special_tokens: bool = False) -> TokenIds:
        """Ids of ``text``; with ``special_tokens``, including those the tokenizer adds."""
        ...


@dataclass(frozen=True)
class RewardResult:
    """The results of all rewards for one completion; None: cannot be judged, never 0."""

    reward: float | None
    rewards: Mapping[str, float | None]
    invalid: bool = False
    """Empty, truncated or rejected by a gate: the reward is the minimum, not a measurement."""


@dataclass(kw_only=True, eq=False)
class SampledCompletion:
    """One completion of an update. Sampling makes it; scoring, rewards and loss fill in their part.

    Log-probs are in nats, one per id of the completion.
    """

    sample: Sample
    """Prompt and completion as ids and text, and the fields of the data row."""
    sampled_logprobs: tuple[float, ...] | None = None
    """At temperature 1, before top-p and top-k; None if the sampler does not keep them."""
    drawn_logprobs: tuple[float, ...] | None = None
    """At the temperature of sampling; None if the sampler does not keep them."""
    sampler_gap: float | None = None
    """Mean distance of `drawn_logprobs` to the log-probs of the weights that learn."""
    answer: Any = None
    """The reference answer, or several accepted ones, as the data row holds them."""
    reference_tokens: int | None = None
    """Length of the longest accepted answer; None where there is none."""
    result: RewardResult = RewardResult(None, {})
    """What the rewards say of it; before that: not judged."""
    in_loss: bool = False
    """False in a group without signal, and if it cannot be judged."""
    logged: Mapping[str, Any] = field(default_factory=dict)
    """What reward functions of the user passed to log_extra."""

    @property
    def ended(self) -> bool:
        """Whether an end-of-sequence id was sampled."""
        return len(self.sample.content_ids) < len(self.sample.completion_ids)


@dataclass(frozen=True)
class Rollout:
    """The judged completions of one update, in generation order."""

    step: int
    completions: Sequence[SampledCompletion]
    groups_filtered: float
    """Share of groups without signal, 0 to 1."""
    scores_from: Mapping[str, int]
    """Number of scores by source."""
    logged: Mapping[str, float | None] = field(default_factory=dict)
    """What reward functions of the user passed to log_metric, averaged."""

    @property
    def has_signal(self) -> bool:
        """Whether anything is left to train on."""
        return any(completion.in_loss for completion in self.completions)

    @property
    def texts(self) -> list[str]:
        """The completions as text."""
        return [completion.sample.completion_text for completion in self.completions]

    @property
    def results(self) -> list[RewardResult]:
        """What the rewards say of each completion."""
        return [completion.result for completion in self.completions]

    @property
    def tokens(self) -> list[int]:
        """Length of each completion, with end-of-sequence."""
        return [len(completion.sample.completion_ids) for completion in self.completions]

    @property
    def content_tokens(self) -> list[int]:
        """Length of each completion, without end-of-sequence."""
        return [len(completion.sample.content_ids) for completion in self.completions]

    @property
    def reference_tokens(self) -> list[int | None]:
        """Length of each completion's reference answer."""
        return [completion.reference_tokens for completion in self.completions]


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer to a held-out row, judged by the row's accepted answers."""

    text: str
    tokens: int
    """Its length with end-of-sequence."""
    ended: bool
    """Whether it ended before the length limit."""
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
    """Settings for loading a model."""

    dtype: str = "auto"
    """``auto`` (bfloat16 on CUDA, float32 on CPU) or a torch dtype's name."""
    load_in_4bit: bool = False
    """Quantise the weights to 4 bits while they are loaded."""
    trust_remote_code: bool = False
    max_tokens_per_batch: int = 8192
    """Maximum padded tokens per forward pass in scoring and generation."""
    chat_template_kwargs: dict[str, Any] | None = None
    max_seq_length: int = 2048
    """Maximum sequence length; some engines reserve memory for it."""
    lora_rank: int = 16
    """Rank of the adapter, for the same reason."""
    gradient_checkpointing: bool = False
    seed: int = 0
    disable_dropout: bool = True
    """Disable the model's own dropout, not that of an adapter."""


@dataclass(frozen=True)
class AdapterSettings:
    """A LoRA adapter (arXiv 2106.09685) to train."""

    r: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]
    seed: int

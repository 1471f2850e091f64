"""Rewards from token log-probabilities: the catalogue, and how a model is bound to it."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from remote_trainer.errors import NonFiniteRewardError
from remote_trainer.records import Judgement, LogprobRequest, Prompt, Sample, TokenIds
from remote_trainer.rewards.base import RewardConfig
from remote_trainer.rewards.inverse_loss import InverseLoss
from remote_trainer.rewards.samples import Completion, build_samples, sampled, text_of, written
from remote_trainer.rewards.supervised import Supervised

if TYPE_CHECKING:
    from remote_trainer.engine.backend import Backend

logger = logging.getLogger(__name__)

REWARDS: dict[str, type[RewardConfig]] = {
    "inverse_loss": InverseLoss,
    "supervised": Supervised,
}

__all__ = [
    "REWARDS",
    "RewardConfig",
    "RewardFunction",
    "create_inverse_loss_reward",
    "create_reward_function",
]


class RewardFunction:
    """One callable for a trainer: the weighted sum of all configured rewards.

    TRL calls it with ``prompts``, ``completions``, ``completion_ids`` and the data columns; it
    returns one float a completion, or None where any configured reward cannot judge the row.
    """

    def __init__(
        self,
        backend: "Backend",
        rewards: Sequence[RewardConfig],
        max_completion_length: int | None = None,
    ) -> None:
        self.backend = backend
        self.rewards = _named(rewards)
        self.max_completion_length = max_completion_length
        self.__name__ = "+".join(self.rewards)  # TRL's name for the metric
        for name, reward in self.rewards.items():
            if getattr(reward, "formula", None) == "original":
                logger.warning(
                    "reward %s uses formula: original, which rewards missing text; "
                    "it is kept for comparison, see docs/rewards.md",
                    name,
                )

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]] | None = None,
        prompt_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward per completion.

        String prompts are literal text (BOS is added if the tokenizer adds one and the text lacks
        it), message lists are rendered with the generation prompt; ``completion_ids`` and
        ``prompt_ids`` win over text.
        """
        judgements = self.judge(
            build_samples(
                self.backend.codec,
                prompts,
                completions,
                completion_ids,
                prompt_ids,
                columns,
                self.max_completion_length,
            )
        )
        return [judgement.reward for judgement in judgements]

    def sample(
        self,
        prompt: Prompt,
        prompt_ids: TokenIds,
        completion_ids: TokenIds,
        fields: Mapping[str, Any],
    ) -> Sample:
        """The record of one completion that was sampled as ids."""
        limit = self.max_completion_length
        return sampled(self.backend.codec, prompt, prompt_ids, completion_ids, fields, limit)

    def samples(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        rows: Sequence[Mapping[str, Any]],
    ) -> list[Sample]:
        """Records of completions that are given as text, one row of fields each."""
        codec = self.backend.codec
        return [
            written(codec, prompt, codec.encode_prompt(prompt), text_of(completion), fields)
            for prompt, completion, fields in zip(prompts, completions, rows, strict=True)
        ]

    def judge(self, samples: Sequence[Sample]) -> list[Judgement]:
        """Total and parts for each sample; each distinct request costs one row of one pass.

        Raises NonFiniteRewardError by name of reward and row if any value is NaN or infinite.
        """
        plans = [
            {name: reward.plan(sample, self.backend.codec.encode) for name, reward in self._items}
            for sample in samples
        ]
        logprobs = self._score(plan for parts in plans for plan in parts.values() if plan)
        judgements = []
        for sample, parts in zip(samples, plans, strict=True):
            values = {
                name: None if plan is None else plan.value(*(logprobs[r] for r in plan.requests))
                for name, plan in parts.items()
            }
            _require_finite(values, sample)
            judgements.append(Judgement(self._total(values), values))
        return judgements

    @property
    def _items(self) -> list[tuple[str, RewardConfig]]:
        return list(self.rewards.items())

    def _score(self, plans: Any) -> Mapping[LogprobRequest, Sequence[float]]:
        requests = list(dict.fromkeys(request for plan in plans for request in plan.requests))
        return dict(zip(requests, self.backend.score(requests), strict=True))

    def _total(self, values: Mapping[str, float | None]) -> float | None:
        total = 0.0
        for name, reward in self._items:
            value = values[name]
            if value is None:
                return None
            total += reward.weight * value
        return total


def create_reward_function(
    model: Any,
    tokenizer: Any,
    *,
    reward_type: str | None = None,
    config: Sequence[RewardConfig | Mapping[str, Any]] | None = None,
    max_completion_length: int | None = None,
    max_tokens_per_batch: int = 8192,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> RewardFunction:
    """A reward function for stock TRL or any other caller.

    ``reward_type`` (default ``inverse_loss``) with the reward's options as keywords, or ``config``:
    a list of rewards to sum by weight. ``max_completion_length`` lets truncated completions be
    told from ended ones. At most ``max_tokens_per_batch`` padded tokens go through the model at
    once. Raises ValueError (pydantic's) for unknown types or options.
    """
    from remote_trainer.engine.transformers_backend import TransformersBackend

    if config is not None and (reward_type is not None or options):
        raise ValueError("give either config= or reward_type= with options, not both")
    chosen = config if config is not None else [{"type": reward_type or "inverse_loss", **options}]
    backend = TransformersBackend(
        model,
        tokenizer,
        max_tokens_per_batch=max_tokens_per_batch,
        chat_template_kwargs=chat_template_kwargs,
    )
    rewards = [r if isinstance(r, RewardConfig) else RewardConfig(**r) for r in chosen]
    return RewardFunction(backend, rewards, max_completion_length)


def create_inverse_loss_reward(model: Any, tokenizer: Any, **options: Any) -> RewardFunction:
    """`create_reward_function` for the unsupervised reward."""
    return create_reward_function(model, tokenizer, reward_type="inverse_loss", **options)


def _named(rewards: Sequence[RewardConfig]) -> dict[str, RewardConfig]:
    """Rewards by type; a second one of a type becomes ``type_2``."""
    named: dict[str, RewardConfig] = {}
    for reward in rewards:
        twins = sum(other.type == reward.type for other in named.values())
        named[f"{reward.type}_{twins + 1}" if twins else reward.type] = reward
    return named


def _require_finite(values: Mapping[str, float | None], sample: Sample) -> None:
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise NonFiniteRewardError(
                f"reward {name} is {value} for the prompt {sample.prompt_text[-200:]!r} and the "
                f"completion {sample.completion_text[:200]!r}; the model's log-probabilities are "
                "not finite: lower training.learning_rate, or go back to an earlier checkpoint"
            )

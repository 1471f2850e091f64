"""Rewards from token log-probabilities: the catalogue, and how a model is bound to it."""

from collections.abc import Mapping, Sequence
from typing import Any

from remote_trainer.rewards.base import RewardConfig
from remote_trainer.rewards.combined import RewardFunction
from remote_trainer.rewards.logprob_cache import LogprobCache
from remote_trainer.rewards.registry import REWARDS

__all__ = [
    "REWARDS",
    "LogprobCache",
    "RewardConfig",
    "RewardFunction",
    "create_inverse_loss_reward",
    "create_reward_function",
]


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
    # It imports torch, which the catalogue of rewards does without.
    from remote_trainer.engines.transformers_backend import TransformersBackend

    if config is not None and (reward_type is not None or options):
        raise ValueError("give either config= or reward_type= with options, not both")
    named = {} if reward_type is None else {"type": reward_type}
    chosen = config if config is not None else [{**named, **options}]
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

"""Rewards computed from token log-probabilities, and functions that create them for a model."""

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
    """Create a reward function for TRL's GRPOTrainer or any other caller.

    Give ``reward_type`` (default ``inverse_loss``) with its options as keywords, or ``config``: a
    list of rewards, summed by weight. Truncated completions are detected only if
    ``max_completion_length`` is given. A forward pass gets at most ``max_tokens_per_batch`` padded
    tokens. Raises ValueError (from pydantic) for unknown types or options.
    """
    # It imports torch, which the reward catalogue does not need.
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
    """`create_reward_function` with ``reward_type="inverse_loss"``."""
    return create_reward_function(model, tokenizer, reward_type="inverse_loss", **options)

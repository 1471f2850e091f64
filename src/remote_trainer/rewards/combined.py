"""The weighted sum of all configured rewards, as one callable bound to a model."""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from remote_trainer.engines.untrained_state import untrained_state
from remote_trainer.errors import NonFiniteRewardError
from remote_trainer.records import (
    EncodedRow,
    Prompt,
    RewardResult,
    Row,
    Sample,
    Scorer,
    ScoreRequest,
    TokenIds,
)
from remote_trainer.rewards.base import Plan, RewardConfig
from remote_trainer.rewards.formulas.user_function import UserFunction
from remote_trainer.rewards.function_call import call_together
from remote_trainer.rewards.function_log import FunctionLog
from remote_trainer.rewards.logprob_cache import LogprobCache
from remote_trainer.rewards.samples import Completion, build_samples, sampled, text_of, written

if TYPE_CHECKING:
    from remote_trainer.engines.protocol import Backend
    from remote_trainer.progress import OnProgress

logger = logging.getLogger(__name__)

ENCODE_CACHE_SIZE = 4096


class RewardFunction:
    """One callable for a trainer: the weighted sum of all configured rewards.

    TRL calls it with ``prompts``, ``completions``, ``completion_ids`` and the data columns; it
    returns one float per completion, or None if any configured reward cannot judge the row.
    """

    def __init__(
        self,
        backend: "Backend",
        rewards: Sequence[RewardConfig],
        max_completion_length: int | None = None,
        updates: int = 1,
    ) -> None:
        """``updates`` of the whole run, which user functions get as ``trainer_state.max_steps``."""
        self.backend = backend
        self.rewards = _named(rewards)
        self.max_completion_length = max_completion_length
        self.updates = updates
        self.__name__ = "+".join(self.rewards)  # TRL logs the reward under this name
        self._warned = False
        # Answers and connectors are encoded again for each completion and in later updates.
        self._encode = lru_cache(maxsize=ENCODE_CACHE_SIZE)(backend.prompt_tokenizer.encode)
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
        trainer_state: Any = None,
        log_extra: Any = None,
        log_metric: Any = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward per completion.

        String prompts are literal text (BOS is added if the tokenizer adds one and the text lacks
        it), message lists are rendered with the generation prompt; ``completion_ids`` and
        ``prompt_ids`` take precedence over text. TRL passes ``trainer_state``, ``log_extra`` and
        ``log_metric``, which only user functions need.
        """
        self._warn_without_reference()
        log = FunctionLog()
        reward_results = self.judge(
            build_samples(
                self.backend.prompt_tokenizer,
                prompts,
                completions,
                completion_ids,
                prompt_ids,
                columns,
                self.max_completion_length,
            ),
            trainer_state=trainer_state,
            log=log,
        )
        log.forward(log_metric, log_extra)
        return [reward_result.reward for reward_result in reward_results]

    def _warn_without_reference(self) -> None:
        """Warn once if the reference model is asked for and the model has no adapter."""
        needed = any(
            "scored_by" in reward.model_fields_set
            and getattr(reward, "scored_by", None) == "reference"
            for reward in self.rewards.values()
        )
        if needed and not self._warned and not hasattr(self.backend.model, "disable_adapter"):
            self._warned = True
            logger.warning(
                "scored_by: reference means the model without its adapter; this model has no "
                "adapter, so the current model scores its own completions"
            )

    def sample(self, row: EncodedRow, completion_ids: TokenIds) -> Sample:
        """The `Sample` of a completion given as sampled ids."""
        limit = self.max_completion_length
        return sampled(self.backend.prompt_tokenizer, row, completion_ids, limit)

    def samples(self, rows: Sequence[Row], completions: Sequence[Completion]) -> list[Sample]:
        """The `Sample` of each completion given as text, with its data row."""
        prompt_tokenizer = self.backend.prompt_tokenizer
        return [
            written(prompt_tokenizer, prompt_tokenizer.encode_row(row), text_of(completion))
            for row, completion in zip(rows, completions, strict=True)
        ]

    def requests(self, samples: Sequence[Sample], scored_by: Scorer) -> list[ScoreRequest]:
        """The distinct requests of the rewards to this scorer for the samples."""
        rewards = [r for r in self.rewards.values() if getattr(r, "scored_by", None) == scored_by]
        plans = [plan for reward in rewards for plan in reward.plans(samples, self._encode) if plan]
        return list(dict.fromkeys(request for plan in plans for request in plan.requests))

    def judge(
        self,
        samples: Sequence[Sample],
        known: LogprobCache | None = None,
        on_progress: "OnProgress | None" = None,
        trainer_state: Any = None,
        log: FunctionLog | None = None,
    ) -> list[RewardResult]:
        """The weighted sum and the single rewards of each sample.

        Log-probs in ``known`` are reused; each other distinct request is one row of a forward pass.
        User functions get ``trainer_state`` (None: the state before the first update) and write to
        ``log``. Raises NonFiniteRewardError with reward and row if a value is NaN or infinite.
        """
        columns = self._plans(samples, trainer_state, log or FunctionLog())
        plans = [plan for column in columns.values() for plan in column if plan]
        scores = (known or LogprobCache()).answer(
            (request for plan in plans for request in plan.requests),
            lambda requests: self.backend.score(requests, on_progress),
        )

        def value(plan: Plan | None) -> float | None:
            return None if plan is None else plan.value(*(scores[r] for r in plan.requests))

        reward_results = []
        for i, sample in enumerate(samples):
            values = {name: value(column[i]) for name, column in columns.items()}
            _require_finite(values, sample)
            invalid = any(plan.invalid for column in columns.values() if (plan := column[i]))
            reward_results.append(RewardResult(self._total(values), values, invalid))
        return reward_results

    def _plans(
        self, samples: Sequence[Sample], trainer_state: Any, log: FunctionLog
    ) -> dict[str, list[Plan | None]]:
        """One plan per sample for each reward; user functions are called together."""
        own = {n: reward for n, reward in self.rewards.items() if isinstance(reward, UserFunction)}
        if own and trainer_state is None:
            trainer_state = untrained_state(self.updates)
        found = [reward.find() for reward in own.values()]
        values = dict(zip(own, call_together(found, samples, trainer_state, log), strict=True))
        return {
            name: own[name].plans_of(samples, values[name])
            if name in own
            else reward.plans(samples, self._encode)
            for name, reward in self.rewards.items()
        }

    def _total(self, values: Mapping[str, float | None]) -> float | None:
        total = 0.0
        for name, reward in self.rewards.items():
            value = values[name]
            if value is None:
                return None
            total += reward.weight * value
        return total


def _named(rewards: Sequence[RewardConfig]) -> dict[str, RewardConfig]:
    """Rewards by name: the type, and ``type_2`` for a second reward of that type."""
    named: dict[str, RewardConfig] = {}
    for reward in rewards:
        same = sum(other.type == reward.type for other in named.values())
        named[f"{reward.type}_{same + 1}" if same else reward.type] = reward
    return named


def _require_finite(values: Mapping[str, float | None], sample: Sample) -> None:
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            row = f"row {sample.source}, " if sample.source else ""
            raise NonFiniteRewardError(
                f"reward {name} is {value} for {row}the prompt {sample.prompt_text[-200:]!r} and "
                f"the completion {sample.completion_text[:200]!r}; if the model's "
                "log-probabilities are not finite, lower training.learning_rate or resume from "
                "an earlier checkpoint"
            )

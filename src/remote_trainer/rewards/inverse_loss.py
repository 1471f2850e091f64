"""Unsupervised reward: how likely the model finds its own completion."""

from typing import Literal

from pydantic import Field

from remote_trainer.records import Encoder, LogprobRequest, Sample
from remote_trainer.rewards.base import Logprobs, Plan, RewardConfig


class InverseLoss(RewardConfig):
    """Mean log-probability (nats per token) of the completion given the prompt, cut at -c_max.

    r = max(mean_t log p(c_t | prompt, c_<t), -c_max) over all sampled ids, the end-of-sequence id
    included. Range [-c_max, 0]; an empty completion gets -c_max. Maximising it under the policy is
    entropy minimisation: the model becomes surer of what it already says (EM-RL, arXiv 2505.15134;
    tested as a reward by Intuitor, arXiv 2505.19590, appendix B.4). Known failure: collapse into
    short or repeated text when trained for long.
    """

    type: Literal["inverse_loss"] = "inverse_loss"
    """This reward."""
    formula: Literal["mean_logprob", "original"] = "mean_logprob"
    """``original`` is the first published expression to the letter, where empty text wins."""
    scored_by: Literal["policy", "reference"] = "policy"
    """``reference`` judges with the adapter switched off."""
    truncated: Literal["floor", "score"] = "floor"
    """A completion cut at the length limit: lowest reward, or judged like any other."""
    c_max: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Nats per token at which the loss is cut."""

    @property
    def minimum(self) -> float:
        return float("-inf") if self.formula == "original" else -self.c_max

    @property
    def maximum(self) -> float:
        return 0.0

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        if self.formula == "original":
            return self._original(sample, encode)
        if sample.empty or (sample.truncated and self.truncated == "floor"):
            return Plan.settled(self.minimum)
        request = LogprobRequest(
            sample.prompt_ids, sample.completion_ids, sample.completion_ids, self.scored_by
        )
        return Plan((request,), lambda logprobs: mean_logprob(logprobs, self.c_max))

    def _original(self, sample: Sample, encode: Encoder) -> Plan:
        """Text is tokenised again, and the prompt's length counted without special tokens."""
        ids = encode(sample.prompt_text + sample.completion_text, special_tokens=True)
        prompt_length = len(encode(sample.prompt_text))
        # A prompt of no tokens makes the published slice start at -1: the last token alone.
        start = prompt_length if prompt_length > 0 else len(ids) - 1
        if start < 1 or start >= len(ids):
            return Plan.settled(0.0)
        request = LogprobRequest(ids[:start], ids[start:], ids[start:], self.scored_by)
        return Plan((request,), lambda logprobs: sum(logprobs) / len(logprobs))


def mean_logprob(logprobs: Logprobs, c_max: float) -> float:
    """max(mean log p, -c_max), in nats per token; ``logprobs`` holds at least one value."""
    return max(sum(logprobs) / len(logprobs), -c_max)

"""Converts sampling settings to vLLM's and its outputs back. Does not import vLLM."""

from collections.abc import Iterator, Sequence
from typing import Any

from remote_trainer.errors import EngineError
from remote_trainer.inference.completion_seeds import completion_seeds
from remote_trainer.records import Sampling, TokenIds


def sampling_fields(sampling: Sampling, eos_ids: Sequence[int]) -> dict[str, Any]:
    """Fields of vLLM's SamplingParams; ``logprobs`` 0 returns only the sampled id's."""
    return {
        "n": 1,
        "max_tokens": sampling.max_new_tokens,
        "min_tokens": sampling.min_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # Some versions of vLLM read 0 as a number of ids to keep; -1 means all in every version.
        "top_k": sampling.top_k or -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": list(eos_ids),
        "logprobs": 0,
        "detokenize": False,
    }


def seeds(
    prompts: Sequence[TokenIds], seed: int, earlier: Sequence[TokenIds] = ()
) -> Iterator[int]:
    """A 32-bit seed for each completion, as every version of vLLM accepts."""
    return completion_seeds(prompts, seed, size=4, signed=False, earlier=earlier)


def draws_plainly(sampling: Sampling) -> bool:
    """Whether vLLM returns the model's log-probs at temperature 1.

    It returns processed ones: after temperature, top-p, top-k and banned tokens.
    """
    plain = sampling.top_p == 1 and sampling.top_k == 0 and sampling.min_new_tokens == 0
    return sampling.temperature == 1 and plain


def ids_and_logprobs(output: Any) -> tuple[TokenIds, tuple[float, ...]]:
    """The only completion of a RequestOutput: sampled ids, and the log-prob of each.

    Raises EngineError if a log-prob is missing.
    """
    (completion,) = output.outputs
    ids = tuple(completion.token_ids)
    places = completion.logprobs or []
    if len(places) != len(ids) or any(
        token not in place for token, place in zip(ids, places, strict=False)
    ):
        raise EngineError(
            f"vLLM returned log-probs for {len(places)} of {len(ids)} sampled ids, although "
            "logprobs=0 in SamplingParams requests one for each"
        )
    return ids, tuple(place[token].logprob for token, place in zip(ids, places, strict=True))

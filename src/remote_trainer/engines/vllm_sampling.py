"""Our words for sampling in vLLM's, and its outputs in ours. Imports no vLLM by itself."""

from collections.abc import Iterator, Sequence
from typing import Any

from remote_trainer.errors import EngineError
from remote_trainer.inference.completion_seeds import completion_seeds
from remote_trainer.records import Sampling, TokenIds


def sampling_fields(sampling: Sampling, eos_ids: Sequence[int]) -> dict[str, Any]:
    """Fields of vLLM's SamplingParams; ``logprobs`` 0 asks for the sampled id's alone."""
    return {
        "n": 1,
        "max_tokens": sampling.max_new_tokens,
        "min_tokens": sampling.min_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # vLLM reads 0 as a number of ids to keep in some versions, -1 as all of them in every one.
        "top_k": sampling.top_k or -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": list(eos_ids),
        "logprobs": 0,
        "detokenize": False,
    }


def seeds(prompts: Sequence[TokenIds], seed: int) -> Iterator[int]:
    """A seed for each completion, in the 32 bits that every vLLM takes."""
    return completion_seeds(prompts, seed, size=4, signed=False)


def draws_plainly(sampling: Sampling) -> bool:
    """Whether the log-probs that vLLM hands out are those of the model at temperature 1.

    It works on processed ones: behind temperature, top-p, top-k and bans.
    """
    plain = sampling.top_p == 1 and sampling.top_k == 0 and sampling.min_new_tokens == 0
    return sampling.temperature == 1 and plain


def ids_and_logprobs(output: Any) -> tuple[TokenIds, tuple[float, ...]]:
    """The one completion of a RequestOutput: sampled ids, log-prob of each.

    Raises EngineError where vLLM left out a log-prob.
    """
    (completion,) = output.outputs
    ids = tuple(completion.token_ids)
    places = completion.logprobs or []
    if len(places) != len(ids) or any(
        token not in place for token, place in zip(ids, places, strict=False)
    ):
        raise EngineError(
            f"vLLM returned log-probs for {len(places)} of {len(ids)} sampled ids; logprobs=0 in "
            "SamplingParams asks for the sampled id's at every place"
        )
    return ids, tuple(place[token].logprob for token, place in zip(ids, places, strict=True))

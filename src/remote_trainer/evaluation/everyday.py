"""General ability: how likely a model finds everyday English that training has nothing to do with.

The texts are fixed: numbers of different versions of them cannot be compared.
"""

from functools import cache
from importlib.resources import files
from statistics import fmean

from remote_trainer.engines.protocol import Backend
from remote_trainer.records import ScoreRequest


@cache
def everyday_texts() -> tuple[str, ...]:
    """40 texts of 15 to 40 words."""
    source = files("remote_trainer.evaluation").joinpath("everyday_english.txt")
    lines = source.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def everyday_logprobs(backend: Backend) -> list[float]:
    """Mean log-probability of a token of each text, in nats, without chat template.

    The first token is not scored unless the tokenizer adds one in front of texts. Of a model with
    learned positions only as many tokens as it has positions are.
    """
    encode, most = backend.prompt_tokenizer.encode, backend.most_positions
    encoded = [encode(text, special_tokens=True)[:most] for text in everyday_texts()]
    scores = backend.score([ScoreRequest.of(ids[:1], ids[1:]) for ids in encoded])
    return [fmean(logprobs) for logprobs in scores]

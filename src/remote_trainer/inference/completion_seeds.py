"""A random stream of its own for every completion, whatever is drawn beside it. Needs no torch."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

from remote_trainer.records import TokenIds


def completion_seeds(
    prompts: Sequence[TokenIds],
    seed: int,
    size: int,
    *,
    signed: bool,
    earlier: Sequence[TokenIds] = (),
) -> Iterator[int]:
    """Integers of ``size`` bytes by (seed, prompt, number of that prompt among equal ones);
    ``earlier`` prompts, of other processes, are counted before."""
    seen = Counter(earlier)
    for prompt in prompts:
        name = repr((seed, prompt, seen[prompt])).encode()
        yield int.from_bytes(hashlib.sha256(name).digest()[:size], "little", signed=signed)
        seen[prompt] += 1

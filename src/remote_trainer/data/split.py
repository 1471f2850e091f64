"""Holds out rows: whole prompts, so that no prompt is in both parts."""

import random
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HELD_OUT_SHARE, HELD_OUT_LEAST, HELD_OUT_MOST = 0.1, 20, 200


@dataclass(frozen=True)
class Split:
    """Row indices, each in file order."""

    train: Sequence[int]
    eval: Sequence[int]
    beyond: Sequence[int] = ()
    """Rows with held-out prompts beyond the maximum number; in neither part."""


def hold_out(fingerprints: Sequence[int], seed: int) -> Split:
    """Split off a seeded 10 % (20 to 200 rows, at most half) of rows given by prompt hash.

    Rows with the same prompt stay together. If every chosen prompt has too many rows, the prompt
    with the fewest rows is held out. Nothing is held out if all prompts are equal.
    """
    count = round(len(fingerprints) * HELD_OUT_SHARE)
    count = min(max(count, HELD_OUT_LEAST), HELD_OUT_MOST, len(fingerprints) // 2)
    prompts, sizes = _numbered(fingerprints)
    if len(sizes) < 2 or count == 0:
        return Split(range(len(fingerprints)), ())
    chosen = _prompts_of(sizes, count, seed)
    held = array("I", (i for i, prompt in enumerate(prompts) if prompt in chosen))
    kept = array("I", (i for i, prompt in enumerate(prompts) if prompt not in chosen))
    return Split(kept, held[:HELD_OUT_MOST], held[HELD_OUT_MOST:])


def _prompts_of(sizes: Sequence[int], count: int, seed: int) -> set[int]:
    """Prompts with at most ``count`` rows in total, in a seeded order."""
    order = random.Random(seed).sample(range(len(sizes)), min(count, len(sizes)))
    chosen: set[int] = set()
    rows = 0
    for prompt in order:
        if rows + sizes[prompt] <= count:
            chosen.add(prompt)
            rows += sizes[prompt]
    return chosen or {min(range(len(sizes)), key=sizes.__getitem__)}


def _numbered(fingerprints: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """(the number of each row's prompt in order of appearance, rows of each prompt)."""
    numbers: dict[int, int] = {}
    prompts, sizes = array("I"), array("I")
    for each in fingerprints:
        number = numbers.setdefault(each, len(numbers))
        if number == len(sizes):
            sizes.append(0)
        sizes[number] += 1
        prompts.append(number)
    return prompts, sizes


def in_both(train: Iterable[int], held_out: Iterable[int]) -> set[int]:
    """Prompt hashes in both parts."""
    of_eval = set(held_out)
    return {each for each in train if each in of_eval}

"""What the model answers before training: right or not, how rewards spread, how long."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from remote_trainer.config import RunConfig
from remote_trainer.engines.protocol import Backend
from remote_trainer.evaluation import some_of
from remote_trainer.evaluation.accepted import Accepted
from remote_trainer.evaluation.answers import references_of
from remote_trainer.forecast.figures import Completions, Rewards, RightAnswers
from remote_trainer.means import mean_of_known
from remote_trainer.records import EncodedRow, RewardResult, Sample, Sampling
from remote_trainer.rewards import RewardFunction
from remote_trainer.trainer.groups import spread

ROWS, SAMPLES = 16, 8
SEED = 30_000  # apart from the seeds of training and evaluation


@dataclass(frozen=True)
class Drawn:
    """Completions of some rows, ``SAMPLES`` per row in a row, and how long sampling took."""

    samples: Sequence[Sample]
    seconds: float

    @property
    def tokens(self) -> list[int]:
        """Length of each completion with end-of-sequence."""
        return [len(sample.completion_ids) for sample in self.samples]


def places_for(count: int, for_updates: int, seed: int) -> tuple[list[int], list[int]]:
    """(places of ``ROWS`` rows to sample, places of ``for_updates`` rows to train on).

    Drawn at random, because a file may be sorted. No row is in both as long as there are enough.
    """
    order = random.Random(SEED + seed).sample(range(count), min(count, ROWS + for_updates))
    sampled, others = order[:ROWS], order[ROWS:] or order
    return sampled, [others[i % len(others)] for i in range(for_updates)]


def draw(
    backend: Backend, reward: RewardFunction, rows: Sequence[EncodedRow], config: RunConfig
) -> Drawn:
    """Sample as training does, at its length limit."""
    generation = config.generation
    sampling = Sampling(
        max_new_tokens=config.training.max_completion_length,
        temperature=generation.temperature,
        top_p=generation.top_p,
        top_k=generation.top_k,
        min_new_tokens=generation.min_new_tokens,
        seed=SEED + config.training.seed,
        dtype=generation.dtype,
    )
    repeated = [row for row in rows for _ in range(SAMPLES)]
    started = time.perf_counter()
    found = backend.generate([row.prompt_ids for row in repeated], sampling)
    seconds = time.perf_counter() - started
    samples = [reward.sample(row, each.ids) for row, each in zip(repeated, found, strict=True)]
    return Drawn(samples, seconds)


def completions_of(drawn: Drawn) -> Completions:
    """Length, and how many reached the limit."""
    cut = [len(sample.content_ids) == len(sample.completion_ids) for sample in drawn.samples]
    return Completions(fmean(drawn.tokens), fmean(cut))


def rewards_of(results: Sequence[RewardResult], min_std: float) -> Rewards:
    """``results`` holds ``SAMPLES`` per row in a row."""
    groups = [results[i : i + SAMPLES] for i in range(0, len(results), SAMPLES)]
    spreads = [spread(group) for group in groups]
    return Rewards(
        mean_of_known(result.reward for result in results),
        mean_of_known(spreads),
        fmean(value is None or value <= min_std for value in spreads),
    )


def right_answers(
    backend: Backend,
    reward: RewardFunction,
    config: RunConfig,
    train: Sequence[EncodedRow],
    places: Sequence[int],
    drawn: Drawn,
    held_out: Sequence[EncodedRow],
) -> RightAnswers | None:
    """By the drawn completions if their rows have references, otherwise by completions of
    held-out rows; None where no row has a reference."""
    field = config.answer_field
    if any(references_of(train[place], field) for place in places):
        return _judged(train, places, drawn, field, "data.train")
    pool = some_of(held_out)
    known = [place for place, row in enumerate(pool) if references_of(row, field)]
    if not known:
        return None
    chosen = [known[i] for i in places_for(len(known), 0, config.training.seed)[0]]
    drawn = draw(backend, reward, [pool[place] for place in chosen], config)
    return _judged(pool, chosen, drawn, field, "data.eval")


def _judged(
    pool: Sequence[EncodedRow], places: Sequence[int], drawn: Drawn, field: str, taken_from: str
) -> RightAnswers:
    """The answers of the other rows of ``pool`` are rivals."""
    accepted = Accepted(pool, field)
    texts = [sample.completion_text for sample in drawn.samples]
    shares = [
        fmean(accepted.is_right(place, text) for text in texts[i * SAMPLES : (i + 1) * SAMPLES])
        for i, place in enumerate(places)
        if accepted.known(place)
    ]
    return RightAnswers(
        rows=len(shares),
        right=fmean(shares),
        sometimes_right=fmean(share > 0 for share in shares),
        never_right=fmean(share == 0 for share in shares),
        always_right=fmean(share == 1 for share in shares),
        taken_from=taken_from,
    )

"""Numbers about given ids: no gradient, bounded batches, model left as it was found."""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from remote_trainer.inference.packed_rows import packed_scores
from remote_trainer.inference.padded_rows import Side, padded_scores
from remote_trainer.models.modes import adapter_off, scoring_mode
from remote_trainer.progress import OnProgress
from remote_trainer.records import ScoreRequest


def score_requests(
    model: Any,
    requests: Sequence[ScoreRequest],
    pad_id: int,
    max_tokens_per_batch: int,
    on_progress: OnProgress | None = None,
    packed: bool = False,
    padded_on: Side = "left",
) -> list[tuple[float, ...]]:
    """One number per target of each request, in nats at temperature 1, in the order asked.

    Requests whose inputs begin alike share a row: the log-probabilities of a completion are read
    off the pass that scores the answer behind it. With ``packed`` whatever beginnings they have in
    common are read once, too. At most ``max_tokens_per_batch`` tokens go through the model at once
    (a longer single row goes alone). ``padded_on`` is for models that bear padding on one side
    only. ``on_progress`` gets requests done and all.
    """
    scores: list[tuple[float, ...]] = [()] * len(requests)
    done = sum(not request.target for request in requests)
    with scoring_mode(model):
        for scored_by, indices in _by_scorer(requests):
            with adapter_off(model) if scored_by == "reference" else contextlib.nullcontext():
                batches = (
                    packed_scores(model, requests, indices, max_tokens_per_batch)
                    if packed
                    else padded_scores(
                        model, requests, indices, pad_id, max_tokens_per_batch, padded_on
                    )
                )
                for answers in batches:
                    for i, numbers in answers:
                        scores[i] = numbers
                    done += len(answers)
                    if on_progress is not None:
                        on_progress(done, len(requests))
    return scores


def _by_scorer(requests: Sequence[ScoreRequest]) -> Iterator[tuple[str, list[int]]]:
    asked = [i for i, request in enumerate(requests) if request.target]
    asked.sort(key=lambda i: requests[i].scored_by)
    for scored_by, indices in groupby(asked, key=lambda i: requests[i].scored_by):
        yield scored_by, list(indices)

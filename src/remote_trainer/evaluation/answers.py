"""What a model answers to held-out rows: greedy, sampled, and how likely the reference was."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, TypeVar

from remote_trainer.engines.protocol import Backend
from remote_trainer.evaluation.everyday import everyday_logprobs
from remote_trainer.field_paths import find
from remote_trainer.progress import OnProgress
from remote_trainer.records import EncodedRow, Generation, Sampling, ScoreRequest
from remote_trainer.references import accepted_answers

LEAST_TOKENS, TOKENS_PER_REFERENCE_TOKEN = 16, 4
NO_REFERENCE_TOKENS = 64
MOST_ROWS_READ = 10_000
AnyRow = TypeVar("AnyRow")
SPARE_TOKENS = 16
"""Between a completion and the reference that is asked for behind it, connector and all."""
EVALUATION_SEED = 20_000  # fixed: two models are asked with the same random numbers


@dataclass(frozen=True)
class Answers:
    """Everything that was generated for some rows, so that metrics can be computed later."""

    greedy: list[Generation]
    sampled: list[list[Generation]]
    """One list per row, ``samples`` long."""
    reference_logprobs: list[float | None]
    """Mean nats per token of the reference right after the prompt, of several the best; None
    without a reference."""
    max_new_tokens: int
    general_logprob: float | None = None
    """Mean nats per token of everyday English; None if it was not measured."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for the cache."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Answers":
        """Inverse of `to_json`."""
        return cls(
            greedy=[_generation(g) for g in value["greedy"]],
            sampled=[[_generation(g) for g in row] for row in value["sampled"]],
            reference_logprobs=value["reference_logprobs"],
            max_new_tokens=value["max_new_tokens"],
            general_logprob=value["general_logprob"],
        )


def references_of(row: EncodedRow, answer_field: str) -> tuple[str, ...]:
    """The row's accepted answers, none where it has no reference."""
    return accepted_answers(find(row.row.fields, answer_field))


def question_key(row: EncodedRow, answer_field: str) -> str:
    """What two rows have in common if the same text may answer both: their reference answers, or
    their prompt where there is none."""
    accepted = references_of(row, answer_field)
    return "\n".join(accepted) if accepted else repr(row.row.prompt)


def some_of(rows: Sequence[AnyRow]) -> Sequence[AnyRow]:
    """The rows, or as many evenly spaced ones as can be read in about a second: where nothing is
    held out these are the rows of training, and there may be millions."""
    count = len(rows)
    if count <= MOST_ROWS_READ:
        return rows
    return [rows[i * count // MOST_ROWS_READ] for i in range(MOST_ROWS_READ)]


def length_limit(
    rows: Sequence[EncodedRow],
    answer_field: str,
    backend: Backend,
    asked: int | None,
    least: int = 0,
) -> int:
    """Longest completion in tokens: as asked, else max(16, 4 x longest reference), or ``least`` if
    that is longer.

    Shorter where the model has no positions for that behind the longest prompt.
    """
    if asked is not None and backend.most_positions is None:
        return asked
    lengths = [
        len(backend.prompt_tokenizer.encode(reference))
        for row in rows
        for reference in references_of(row, answer_field)
    ]
    longest = max(lengths, default=0)
    usual = max(LEAST_TOKENS, TOKENS_PER_REFERENCE_TOKEN * longest)
    wanted = asked or max(usual if lengths else NO_REFERENCE_TOKENS, least)
    most = backend.most_positions
    if most is None:
        return wanted
    taken = max((len(row.prompt_ids) for row in rows), default=0)
    taken += longest + SPARE_TOKENS if lengths else 0
    return max(1, min(wanted, most - taken))


def collect_answers(
    backend: Backend,
    rows: Sequence[EncodedRow],
    answer_field: str,
    samples: int,
    max_new_tokens: int,
    on_progress: OnProgress = lambda done, total: None,
) -> Answers:
    """Ask the model every row once greedily and ``samples`` times at temperature 1.

    ``on_progress`` is called with the number of answers done and the total of both.
    """
    prompts = [row.prompt_ids for row in rows]
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    total = len(prompts) + len(repeated)
    greedy = backend.generate(
        prompts, Sampling(max_new_tokens, temperature=0), lambda done, _: on_progress(done, total)
    )
    drawn = backend.generate(
        repeated,
        Sampling(max_new_tokens, seed=EVALUATION_SEED),
        lambda done, _: on_progress(len(prompts) + done, total),
    )
    return Answers(
        greedy=greedy,
        sampled=[drawn[i * samples : (i + 1) * samples] for i in range(len(rows))],
        reference_logprobs=_reference_logprobs(backend, rows, answer_field),
        max_new_tokens=max_new_tokens,
        general_logprob=fmean(everyday_logprobs(backend)),
    )


def _reference_logprobs(
    backend: Backend, rows: Sequence[EncodedRow], answer_field: str
) -> list[float | None]:
    means: list[float | None] = [None] * len(rows)
    asked = []
    for i, row in enumerate(rows):
        for reference in references_of(row, answer_field):
            if ids := backend.prompt_tokenizer.encode(reference):
                asked.append((i, ScoreRequest(row.prompt_ids, ids, ids)))
    scores = backend.score([request for _, request in asked])
    for (i, _), logprobs in zip(asked, scores, strict=True):
        mean, best = sum(logprobs) / len(logprobs), means[i]
        means[i] = mean if best is None else max(best, mean)
    return means


def _generation(value: dict[str, Any]) -> Generation:
    return Generation(
        tuple(value["ids"]),
        tuple(value["logprobs"]),
        tuple(value["drawn_logprobs"]),
        value["ended"],
    )

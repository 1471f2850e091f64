"""The held-out probe: a few fixed rows answered greedily again and again while a model trains."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from remote_trainer.engines.protocol import Backend
from remote_trainer.evaluation.accepted import Accepted
from remote_trainer.evaluation.answers import length_limit, question_key
from remote_trainer.evaluation.everyday import everyday_logprobs
from remote_trainer.means import mean_of_known
from remote_trainer.records import EncodedRow, Generation, Sampling, ScoreRequest
from remote_trainer.rewards import RewardFunction
from remote_trainer.rewards.formulas.answer_likelihood import AnswerLikelihood
from remote_trainer.text_statistics import distinct_3, duplicate_share

LEAST_ROWS, MOST_ROWS = 16, 32
Values = list[float | None]
Measured = dict[str, Any]
CONNECTOR = "\nAnswer: "
"""Not that of the rewards: the guard's levels were measured with this one."""


def probe_places(rows: Sequence[EncodedRow]) -> list[int]:
    """Places of the probe's rows, spread evenly so that every part of a file counts.

    Half of the rows, but 16 at least and 32 at most: what the probe chose is judged by the others.
    """
    count = min(max(LEAST_ROWS, min(MOST_ROWS, len(rows) // 2)), len(rows))
    return [i * len(rows) // count for i in range(count)]


class Probe:
    """Rows with all that stays the same between two looks at them."""

    def __init__(
        self,
        backend: Backend,
        rows: Sequence[EncodedRow],
        answer_field: str,
        max_new_tokens: int | None,
        least_tokens: int = 0,
    ) -> None:
        self._places = probe_places(rows)
        self.rows = [rows[i] for i in self._places]
        self.sources = [row.row.source for row in self.rows]
        """``file:line`` of each row."""
        self._accepted = Accepted(rows, answer_field)
        self._limit = length_limit(rows, answer_field, backend, max_new_tokens, least_tokens)
        likelihood = AnswerLikelihood(
            answer_field=answer_field,
            formula="mean_prob",
            connector=CONNECTOR,
            scored_by="reference",
        )
        # No length limit: a completion that was cut here may still hold the answer.
        self._likelihood = RewardFunction(backend, [likelihood])
        self._answer_field = answer_field
        self._backend = backend

    def measure(self) -> Measured:
        """Look at the model as it is now; None where there is nothing to measure by.

        Means over the rows, whose values stand in ``per_row``:

        - accuracy: share of rows whose greedy completion is right, 0 to 1;
        - answer_likelihood: mean probability of a reference token behind the completion, asked
          of the model without adapter, 0 to 1;
        - fluency: mean log-prob in nats of a completion's tokens without adapter;
        - prompt_dependence: how much likelier completions are behind their own prompt than
          behind that of the next row, in nats a token.

        Mean over 40 everyday texts instead, also in ``per_row``:

        - general_logprob: mean log-prob in nats of a token, with the adapter.

        Of all rows together:

        - duplicate_share: share of rows answered in the words of a row that asks for another
          answer; distinct_3: variety of word triples; completion_tokens_mean; clipped_share.
        """
        prompts = [row.prompt_ids for row in self.rows]
        answers = self._backend.generate(prompts, Sampling(self._limit, temperature=0))
        samples = [
            self._likelihood.sample(row, answer.ids)
            for row, answer in zip(self.rows, answers, strict=True)
        ]
        texts = [sample.completion_text for sample in samples]
        asked = [question_key(row, self._answer_field) for row in self.rows]
        per_row: dict[str, Values] = {
            "accuracy": self._right([sample.answer_text for sample in samples]),
            "answer_likelihood": [j.reward for j in self._likelihood.judge(samples)],
            **self._likely(answers),
            "general_logprob": [*everyday_logprobs(self._backend)],
        }
        return {
            **{name: mean_of_known(values) for name, values in per_row.items()},
            "per_row": per_row,
            "duplicate_share": duplicate_share(texts, asked),
            "distinct_3": distinct_3(texts),
            "completion_tokens_mean": fmean(len(sample.content_ids) for sample in samples),
            "clipped_share": fmean(not answer.ended for answer in answers),
        }

    def _right(self, texts: Sequence[str]) -> Values:
        judged = zip(self._places, texts, strict=True)
        return [
            float(self._accepted.is_right(place, text)) if self._accepted.known(place) else None
            for place, text in judged
        ]

    def _likely(self, answers: Sequence[Generation]) -> dict[str, Values]:
        """Fluency and prompt dependence, from one call of the scorer."""
        asked = []
        for i, answer in enumerate(answers):
            own = self.rows[i].prompt_ids
            other = self.rows[(i + 1) % len(self.rows)].prompt_ids
            asked += [
                ScoreRequest.of(own, answer.ids, "reference"),
                ScoreRequest.of(own, answer.ids),
                ScoreRequest.of(other, answer.ids),
            ]
        # At least the end-of-sequence id was sampled, so every completion has a mean.
        means = [fmean(scores) for scores in self._backend.score(asked)]
        return {
            "fluency": list(means[::3]),
            "prompt_dependence": [a - b for a, b in zip(means[1::3], means[2::3], strict=True)],
        }

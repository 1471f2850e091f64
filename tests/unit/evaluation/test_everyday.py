"""The probe of general ability: its texts, and its number against the scorer."""

from typing import Any

import pytest
import torch

from remote_trainer.evaluation import collect_answers
from remote_trainer.evaluation.everyday import everyday_logprobs, everyday_texts
from remote_trainer.records import EncodedRow, Row, ScoreRequest


def test_there_are_forty_different_texts_of_fitting_length() -> None:
    texts = everyday_texts()
    assert len(texts) == len(set(texts)) == 40
    assert all(15 <= len(text.split()) <= 40 for text in texts)
    assert all(text.isascii() for text in texts)


def test_the_number_is_the_mean_log_probability_of_the_tokens(backend: Any) -> None:
    """Against a plain forward pass, for tokenizers with and without BOS."""
    found = everyday_logprobs(backend)
    assert len(found) == 40
    for place in (0, 17, 39):
        ids = backend.prompt_tokenizer.tokenizer(everyday_texts()[place])["input_ids"]
        with torch.no_grad():
            logits = backend.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        own = [float(logits[i, ids[i + 1]]) for i in range(len(ids) - 1)]
        assert found[place] == pytest.approx(sum(own) / len(own), abs=1e-4)


class FewPositions:
    """A backend whose tokens are characters and whose log-probs are their places."""

    most_positions = 5

    def __init__(self) -> None:
        self.prompt_tokenizer = self

    def encode(self, text: str, special_tokens: bool) -> tuple[int, ...]:
        assert special_tokens
        return tuple(map(ord, text))

    def score(self, requests: list[ScoreRequest]) -> list[tuple[float, ...]]:
        assert all(len(each.context) == 1 for each in requests)
        return [tuple(-float(i) for i in range(len(each.target))) for each in requests]


def test_a_model_with_few_positions_reads_the_beginnings() -> None:
    backend: Any = FewPositions()
    assert everyday_logprobs(backend) == [-1.5] * 40  # of 0, -1, -2 and -3


def test_evaluation_measures_it_beside_the_answers(llama: Any) -> None:
    rows = [EncodedRow(Row("q", {"answer": "Paris"}, "f:1"), (1, 20, 30), "q")]
    answers = collect_answers(llama, rows, "answer", samples=1, max_new_tokens=2)
    assert answers.general_logprob == pytest.approx(sum(everyday_logprobs(llama)) / 40)

"""A list of accepted answers: the best counts, in every reward and in evaluation."""

from typing import Any

import pytest

from remote_trainer.evaluation.accepted import Accepted
from remote_trainer.evaluation.answers import collect_answers, length_limit
from remote_trainer.evaluation.metrics import measure
from remote_trainer.records import EncodedRow, Row
from remote_trainer.rewards import REWARDS, RewardConfig, RewardFunction, create_reward_function
from remote_trainer.rewards.self_test import self_test
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer

QUESTION = "What is the capital of France?"
SAID = ["Paris is the capital", "Madrid", "The capital of Spain is Madrid.", " ", "42 apples"]
ACCEPTED = ["Paris", "The capital of Spain", "42"]
VARIANTS: list[dict[str, Any]] = [
    *({"type": name} for name in REWARDS if name not in ("function", "regex")),
    {"type": "supervised", "formula": "coverage_ce"},
    {"type": "supervised", "formula": "coverage_information"},
    {"type": "supervised", "formula": "original"},
    {"type": "supervised", "alignment": "positional"},
    {"type": "answer_likelihood", "formula": "mean_logprob", "baseline": True},
    {"type": "chrf", "word_order": 2},
]
NEEDING = [v for v in VARIANTS if RewardConfig(**v).needs_answer]


@pytest.mark.parametrize("options", NEEDING, ids=lambda o: "-".join(map(str, o.values())))
def test_the_best_of_several_answers_is_the_reward(llama: Any, options: dict[str, Any]) -> None:
    function = RewardFunction(llama, [RewardConfig(**options)])

    def rewards(answer: Any) -> list[float | None]:
        row = Row(QUESTION, {"answer": answer}, "")
        judged = function.judge(function.samples([row] * len(SAID), SAID))
        return [reward_result.reward for reward_result in judged]

    alone = [rewards(answer) for answer in ACCEPTED]
    best = [max(values) for values in zip(*alone, strict=True)]
    assert rewards(ACCEPTED) == pytest.approx(best, abs=1e-6)
    assert rewards(["Paris"]) == rewards("Paris")  # to the last bit
    assert rewards(["Paris", " ", None]) == rewards("Paris")
    assert rewards([]) == rewards([None]) == [None] * len(SAID)
    assert rewards(42) == rewards("42")


def test_several_rewards_take_their_best_each(llama: Any) -> None:
    parts: list[dict[str, Any]] = [
        {"type": "token_f1"},
        {"type": "answer_likelihood", "weight": 0.5},
    ]
    function = create_reward_function(
        llama.model,
        llama.prompt_tokenizer.tokenizer,
        config=[RewardConfig(**part) for part in parts],
    )
    single = [
        create_reward_function(
            llama.model, llama.prompt_tokenizer.tokenizer, config=[RewardConfig(type=part["type"])]
        )
        for part in parts
    ]

    def call(reward: RewardFunction, answer: Any) -> float:
        (value,) = reward(prompts=[QUESTION], completions=[SAID[0]], answer=[answer])
        assert value is not None
        return value

    best = [max(call(reward, answer) for answer in ACCEPTED) for reward in single]
    assert call(function, ACCEPTED) == pytest.approx(best[0] + 0.5 * best[1], abs=1e-6)


def encoded(backend: Any, answer: Any, prompt: str = QUESTION, **fields: Any) -> EncodedRow:
    row = Row(prompt, {"answer": answer, **fields}, "f:1")
    tokenizer: PromptTokenizer = backend.prompt_tokenizer
    return tokenizer.encode_row(row)


def test_evaluation_takes_the_best_answer_and_the_longest_limit(llama: Any) -> None:
    rows = [encoded(llama, ACCEPTED)]
    limits = [length_limit([encoded(llama, a)], "answer", llama, None) for a in ACCEPTED]
    assert length_limit(rows, "answer", llama, None) == max(limits)
    several = collect_answers(llama, rows, "answer", 2, 8)
    alone = [collect_answers(llama, [encoded(llama, a)], "answer", 2, 8) for a in ACCEPTED]
    best = max(found.reference_logprobs[0] or -99 for found in alone)
    assert several.reference_logprobs == [pytest.approx(best, abs=1e-6)]
    metrics = measure(rows, several, llama.prompt_tokenizer, "answer", None).metrics
    single = [
        measure([encoded(llama, a)], found, llama.prompt_tokenizer, "answer", None).metrics
        for a, found in zip(ACCEPTED, alone, strict=True)
    ]
    for name in ("accuracy_greedy", "accuracy_sampled", "exact_match", "answer_logprob"):
        assert metrics[name] == pytest.approx(max(each[name] for each in single), abs=1e-6)


def test_own_answers_are_no_rivals_and_others_are(llama: Any) -> None:
    rows = [
        encoded(llama, ["Rome", "Roma"], kind="city"),
        encoded(llama, "Oslo", "And of Norway?", kind="city"),
        encoded(llama, 5, "2 + 3?"),
        encoded(llama, [], "?"),
    ]
    accepted = Accepted(rows, "answer")
    assert accepted.is_right(0, "It is Roma, or Rome.")
    assert not accepted.is_right(0, "Rome or Oslo")
    assert not accepted.is_right(0, "Milan")
    assert accepted.is_exact(0, "roma")
    assert not accepted.is_exact(0, "It is Roma")
    assert accepted.is_right(1, "Oslo")
    assert not accepted.is_right(1, "Oslo, Roma")
    assert accepted.is_right(2, "That is 5.")
    assert [accepted.known(i) for i in range(4)] == [True, True, True, False]


def test_self_test_compares_with_an_answer_that_is_not_accepted(llama: Any) -> None:
    function = RewardFunction(llama, [RewardConfig(type="exact_match")])
    tested = self_test(function, [encoded(llama, ["a", "b"]), encoded(llama, ["b", "c"])])
    assert tested is not None
    assert (tested.rows, tested.right_above_wrong) == (1, 1)  # the second has "a" as a wrong one

"""Do rewards put right answers first, on a real model and real questions?"""

import json
import random
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from remote_trainer.config import load_config
from remote_trainer.records import RewardResult, Row
from remote_trainer.rewards import RewardConfig, RewardFunction

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

SHARE = 0.9
SHIPPED = load_config(ROOT / "configs/supervised.yaml").reward
# Without an adapter the reference is the policy, so one pass serves both likelihoods.
LIKELIHOOD = RewardConfig(type="answer_likelihood", scored_by="policy")  # type: ignore[call-arg]
REWARDS = {
    "answer_likelihood": [LIKELIHOOD],
    "supervised": [RewardConfig(type="supervised")],
    "shipped": SHIPPED,
}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """Three rows of each kind of the evaluation file, each with a wrong answer of its kind."""
    lines = (ROOT / "data/eval_supervised.jsonl").read_text().splitlines()
    kinds: dict[str, list[dict[str, str]]] = {}
    for row in map(json.loads, lines):
        kinds.setdefault(row["kind"], []).append(row)
    chosen = []
    for group in kinds.values():
        answers = list(dict.fromkeys(row["answer"] for row in group))
        for row in group[:3]:
            others = [answer for answer in answers if answer != row["answer"]]
            candidates = [*others[:4], row["answer"], *others[4:8]]
            chosen.append({**row, "wrong": others[0], "candidates": ", ".join(candidates)})
    return chosen


def forms_of(row: dict[str, str], place: int) -> dict[str, str]:
    """What a model might say, by name."""
    right, wrong = row["answer"], row["wrong"]
    prompts = (ROOT / "data/train_unsupervised.jsonl").read_text().split()
    words = random.Random(place).choices([word for word in prompts if word.isalpha()], k=60)
    return {
        "right": right,
        "wrong": wrong,
        "right in a sentence": f"I believe the answer is {right}.",
        "wrong in a sentence": f"I believe the answer is {wrong}.",
        "right, 5 words of junk": " ".join([right, *words[:5]]),
        "right, 20 words of junk": " ".join([right, *words[:20]]),
        "right, 60 words of junk": " ".join([right, *words]),
        "all candidates": row["candidates"],
        "empty": "",
    }


@pytest.fixture(scope="module")
def judged(smollm: Any, rows: list[dict[str, str]]) -> dict[str, list[RewardResult]]:
    """RewardResults of every form of every row, by all rewards at once."""
    texts = [forms_of(row, place) for place, row in enumerate(rows)]
    function = RewardFunction(smollm, [LIKELIHOOD, *SHIPPED])
    asked = [Row([{"role": "user", "content": row["prompt"]}], row, "") for row in rows]
    return {
        form: function.judge(function.samples(asked, [text[form] for text in texts]))
        for form in texts[0]
    }


def values_of(
    rewards: list[RewardConfig], judged: dict[str, list[RewardResult]]
) -> dict[str, list[float]]:
    """The weighted sum of some of the rewards, for every form of every row."""

    def value(reward_result: RewardResult) -> float:
        return sum(
            reward.weight * (reward_result.rewards[reward.type] or 0.0) for reward in rewards
        )

    return {form: [value(reward_result) for reward_result in row] for form, row in judged.items()}


@pytest.fixture(params=REWARDS)
def scores(
    request: Any, judged: dict[str, list[RewardResult]]
) -> tuple[str, dict[str, list[float]]]:
    """(name of the reward, value of every form of every row)."""
    return request.param, values_of(REWARDS[request.param], judged)


def wins(better: list[float], worse: list[float]) -> float:
    """Share of rows in which ``better`` is above ``worse``."""
    return fmean(b > w for b, w in zip(better, worse, strict=True))


def test_every_form_was_judged(scores: Any) -> None:
    """Shows what was found, with -s."""
    name, found = scores
    print(f"\n{name}, {len(found['right'])} rows")
    for form, values in found.items():
        beaten = sum(r >= v for r, v in zip(found["right"], values, strict=True))
        print(f"  {form:24} mean {fmean(values):6.3f}   not above the right answer: {beaten}")
    assert all(len(values) == len(found["right"]) >= 30 for values in found.values())


def test_right_answers_score_above_wrong_ones(scores: Any) -> None:
    _, found = scores
    assert wins(found["right"], found["wrong"]) >= SHARE


def test_a_right_answer_inside_a_sentence_still_does(scores: Any) -> None:
    _, found = scores
    assert wins(found["right in a sentence"], found["wrong"]) >= SHARE
    assert wins(found["right in a sentence"], found["wrong in a sentence"]) >= SHARE


def test_empty_is_the_minimum(scores: Any) -> None:
    name, found = scores
    lowest = sum(reward.weight * reward.minimum for reward in REWARDS[name])
    assert found["empty"] == [lowest] * len(found["right"])
    assert min(value for form in ("right", "wrong") for value in found[form]) > lowest


def test_junk_behind_the_answer_does_not_pay(judged: dict[str, list[RewardResult]]) -> None:
    """It takes the fluency term: to the likelihoods alone junk is no harm, as the pages say."""
    found = values_of(SHIPPED, judged)
    for junk in (20, 60):
        assert wins(found["right"], found[f"right, {junk} words of junk"]) >= SHARE


def test_naming_all_candidates_does_not_pay(scores: Any) -> None:
    name, found = scores
    assert fmean(found["right"]) > fmean(found["all candidates"])
    if name == "shipped":
        # The fluency beside it prefers sentences: a bare word beats the list in 3 rows of 4 only.
        assert wins(found["right in a sentence"], found["all candidates"]) >= SHARE

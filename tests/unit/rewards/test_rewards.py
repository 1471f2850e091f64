"""Rewards against numbers computed by hand or by an independent implementation."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import peft
import pytest
import torch

from remote_trainer.errors import NonFiniteRewardError
from remote_trainer.records import Prompt, Sample, ScoreRequest, Thinking, TokenIds
from remote_trainer.rewards import (
    RewardConfig,
    RewardFunction,
    create_inverse_loss_reward,
    create_reward_function,
)
from remote_trainer.rewards.formulas.inverse_loss import mean_logprob
from remote_trainer.rewards.formulas.supervised import (
    coverage_ce,
    coverage_information,
    coverage_prob,
)

CHAT: Prompt = [{"role": "user", "content": "What is the capital of France?"}]
PROMPTS: list[Prompt] = [
    "What is the capital of France?",
    "Answer: ",  # ends in a space
    "Answer:",
    CHAT,
]
COMPLETIONS = [" The capital of France is Paris.", "Paris", "xyz 123", " Paris"]


def reference_logprobs(model: Any, context: Sequence[int], target: Sequence[int]) -> list[float]:
    """Independent: one row, float64, full logits, no padding, no caches."""
    model = model.double()
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *target]])).logits[0].log_softmax(-1)
    model.float()
    return [float(logits[len(context) - 1 + i, token]) for i, token in enumerate(target)]


def literal_ids(tokenizer: Any, text: str) -> list[int]:
    """A prompt as the contract says: BOS if the tokenizer adds one and the text lacks it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = (
        [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else []
    )
    return ids if ids[:1] == bos else bos + ids


def prompt_ids(tokenizer: Any, prompt: Any) -> list[int]:
    if isinstance(prompt, str):
        return literal_ids(tokenizer, prompt)
    return list(
        tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    )


# -- formulas by hand ---------------------------------------------------------------------------


def test_formulas_by_hand() -> None:
    half, seventh = math.log(0.5), math.log(0.7)
    assert mean_logprob([half, seventh], 10) == pytest.approx((half + seventh) / 2)
    assert mean_logprob([-30.0, -40.0], 10) == -10
    assert coverage_prob([half, seventh], 1.0) == pytest.approx(0.6)
    assert coverage_prob([half, seventh], 0.5) == pytest.approx(0.3)
    # 0.25 * mean(-0.5, -5) - 0.75 * 5
    assert coverage_ce([-0.5, -9.0], 0.25, 5) == pytest.approx(0.25 * -2.75 - 3.75)
    assert coverage_information([-0.5, -0.5], [-2.0, -2.0]) == pytest.approx(0.75)
    assert coverage_information([-3.0], [-2.0]) == 0.0
    assert coverage_information([-0.02], [-0.01]) == pytest.approx(0.8)  # 0.02 / floor of 0.1


class Recorded:
    """A prompt_tokenizer and model whose log-probabilities the test decides."""

    def __init__(self, logprob: float = -1.0) -> None:
        self.logprob = logprob
        self.requests: list[ScoreRequest] = []
        self.prompt_tokenizer = self

    def encode(self, text: str, *, special_tokens: bool = False) -> TokenIds:
        return tuple(ord(character) for character in text)

    def thinking(self, prompt_ids: TokenIds, content_ids: TokenIds) -> Thinking:
        return Thinking()

    def score(
        self, requests: Sequence[ScoreRequest], on_progress: Any = None
    ) -> list[tuple[float, ...]]:
        self.requests += requests
        return [(self.logprob,) * len(request.target) for request in requests]


def sample(
    text: str, ids: TokenIds | None = None, truncated: bool = False, **fields: Any
) -> Sample:
    content = tuple(ord(character) for character in text)
    return Sample("Q", (1, 2), "Q", ids or (*content, 0), content, text, truncated, fields)


def judge(samples: Sequence[Sample], stub: Any = None, **options: Any) -> list[float | None]:
    backend: Any = stub or Recorded()
    reward = RewardFunction(backend, [RewardConfig(**options)])
    return [reward_result.reward for reward_result in reward.judge(samples)]


def test_inverse_loss_counts_the_end_of_sequence_once() -> None:
    stub = Recorded(-0.5)
    assert judge([sample("ab")], stub, type="inverse_loss") == [-0.5]
    assert stub.requests == [ScoreRequest((1, 2), (97, 98, 0), (97, 98, 0), "reference")]


def test_supervised_asks_for_the_answer_behind_completion_and_connector() -> None:
    stub = Recorded(math.log(0.5))
    options = {"type": "supervised", "connector": "#", "length_weight": 0}
    rewards = judge([sample("a", answer="xy")], stub, fluency_weight=0, **options)
    assert rewards == [pytest.approx(0.5 * 0.5)]  # half covered, each token at 0.5
    answer = ScoreRequest((1, 2, 97, 35), (120, 121), (120, 121), "reference")
    assert stub.requests == [answer]
    rewards = judge([sample("a", answer="xy")], stub, fluency_weight=0.25, **options)
    # Its own two tokens, too: 0.5 * 0.5, to the power of 1 / (8 + 2).
    assert rewards == [pytest.approx((0.25 + 0.25 * 0.25**0.1) / 1.25)]
    assert stub.requests == [answer, answer, ScoreRequest((1, 2), (97, 0), (97, 0), "reference")]


def test_tokens_beyond_the_length_of_the_answer_cost() -> None:
    options = {"type": "supervised", "fluency_weight": 0}
    texts = [sample("x" * count, answer="xx") for count in (2, 3, 12)]
    p = math.exp(-1)
    priced = judge(texts, length_weight=1, **options)
    assert priced == [pytest.approx(p), pytest.approx(p * 10 / 11), pytest.approx(p / 2)]
    assert judge(texts, length_weight=2, **options)[2] == pytest.approx(p / 4)
    assert judge(texts, length_weight=0, **options) == [pytest.approx(p)] * 3


def test_positional_asks_for_the_answer_in_place_of_the_completion() -> None:
    stub = Recorded(math.log(0.5))
    rewards = judge([sample("abc", answer="xy")], stub, type="supervised", alignment="positional")
    assert rewards == [pytest.approx(0.5)]
    assert stub.requests == [ScoreRequest((1, 2), (97, 98), (120, 121), "reference")]


EVERY = [
    {"type": "inverse_loss"},
    {"type": "supervised"},
    {"type": "supervised", "alignment": "positional"},
    {"type": "supervised", "formula": "coverage_ce"},
    {"type": "supervised", "formula": "coverage_ce", "alignment": "positional"},
    {"type": "supervised", "formula": "coverage_information"},
]


@pytest.mark.parametrize("options", EVERY, ids=str)
@pytest.mark.parametrize("logprob", [0.0, -1e-6, -0.5, -3.0, -50.0, -1e9])
def test_an_empty_or_truncated_completion_never_beats_another(
    options: dict[str, Any], logprob: float
) -> None:
    others = [sample(text, answer="xy") for text in ("x", "xy", "no", "x" * 60)]
    bad = [
        sample("", answer="xy"),
        sample("  \n", answer="xy"),
        sample("xy", truncated=True, answer="xy"),
        sample("", ids=(0,), answer="xy"),
    ]
    values = judge([*others, *bad], Recorded(logprob), **options)
    reward = RewardConfig(**options)
    good, invalid = values[:4], values[4:]
    assert invalid == [reward.minimum] * 4
    assert all(v is not None and reward.minimum <= v <= reward.maximum for v in good)


@pytest.mark.parametrize("options", EVERY[1:3], ids=str)
def test_more_of_the_right_answer_is_better(options: dict[str, Any]) -> None:
    options = {**options, "fluency_weight": 0, "length_weight": 0}
    rewards = judge([sample("x" * n, answer="xxxx") for n in range(1, 6)], **options)
    p = math.exp(-1)
    assert rewards == [pytest.approx(p * share) for share in (0.25, 0.5, 0.75, 1, 1)]


def test_truncated_may_be_scored() -> None:
    assert judge([sample("ab", truncated=True)], type="inverse_loss", truncated="score") == [-1.0]


@pytest.mark.parametrize("answer", [None, "", "  ", {"a": 5}, [], [" "]])
def test_without_a_reference_there_is_no_judgement(answer: Any) -> None:
    assert judge([sample("a", answer=answer)], type="supervised") == [None]
    assert judge([sample("", answer=answer)], type="supervised") == [None]


def test_weighted_sum_needs_every_part() -> None:
    rewards = [
        RewardConfig(type="inverse_loss", weight=2.0),
        RewardConfig(type="supervised", weight=0.5, fluency_weight=0),  # type: ignore[call-arg]
        RewardConfig(type="supervised", formula="coverage_ce", answer_field="gold"),  # type: ignore[call-arg]
    ]
    function = RewardFunction(Recorded(math.log(0.5)), rewards)  # type: ignore[arg-type]
    both = function.judge([sample("xy", answer="xy", gold="xy"), sample("xy", answer="xy")])
    half = math.log(0.5)
    assert both[0].rewards == pytest.approx(
        {"inverse_loss": half, "supervised": 0.5, "supervised_2": half}
    )
    assert both[0].reward == pytest.approx(2 * half + 0.25 + half)
    assert both[1].reward is None
    assert both[1].rewards["supervised"] == pytest.approx(0.5)
    assert both[1].rewards["supervised_2"] is None


def test_nothing_is_asked_twice() -> None:
    stub = Recorded()
    rewards = [RewardConfig(type="supervised"), RewardConfig(type="supervised", weight=3.0)]
    RewardFunction(stub, rewards).judge([sample("x", answer="y")] * 4)  # type: ignore[arg-type]
    assert len(stub.requests) == 2  # the answer behind the completion, and the completion


def test_a_value_that_is_not_finite_stops_by_name() -> None:
    with pytest.raises(
        NonFiniteRewardError, match=r"reward inverse_loss is nan for the prompt 'Q'"
    ):
        judge([sample("ab")], Recorded(float("nan")), type="inverse_loss")
    with pytest.raises(NonFiniteRewardError, match=r"is -inf for row f:7, the prompt 'Q'"):
        judge(
            [replace(sample("ab"), source="f:7")],
            Recorded(float("-inf")),
            type="inverse_loss",
            formula="original",
        )


def test_siblings_do_not_matter(backend: Any) -> None:
    reward = create_reward_function(
        backend.model, backend.prompt_tokenizer.tokenizer, reward_type="supervised"
    )
    answers = ["Paris"] * 4
    together = reward(prompts=PROMPTS, completions=COMPLETIONS, answer=answers)
    alone = [
        reward(prompts=[p], completions=[c], answer=["Paris"])[0]
        for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    assert together == pytest.approx(alone, abs=1e-5)


# -- against an independent implementation on real tokenizers -------------------------------------


def test_inverse_loss_equals_a_hand_computation(backend: Any) -> None:
    tokenizer = backend.prompt_tokenizer.tokenizer
    reward = create_inverse_loss_reward(backend.model, tokenizer)
    found = reward(prompts=PROMPTS, completions=COMPLETIONS)
    for prompt, completion, value in zip(PROMPTS, COMPLETIONS, found, strict=True):
        ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
        logprobs = reference_logprobs(backend.model, prompt_ids(tokenizer, prompt), ids)
        assert value == pytest.approx(max(sum(logprobs) / len(logprobs), -10), abs=1e-5)


def test_supervised_equals_a_hand_computation(backend: Any) -> None:
    tokenizer = backend.prompt_tokenizer.tokenizer
    reward = create_reward_function(backend.model, tokenizer, reward_type="supervised")
    found = reward(prompts=PROMPTS, completions=COMPLETIONS, answer=["Paris is in France."] * 4)
    answer = tokenizer("Paris is in France.", add_special_tokens=False)["input_ids"]
    connector = tokenizer("\nThe correct answer is: ", add_special_tokens=False)["input_ids"]
    for prompt, completion, value in zip(PROMPTS, COMPLETIONS, found, strict=True):
        ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
        context = prompt_ids(tokenizer, prompt) + ids + connector
        probabilities = [math.exp(v) for v in reference_logprobs(backend.model, context, answer)]
        covered = min(1, len(ids) / len(answer)) * sum(probabilities) / len(answer)
        own = reference_logprobs(backend.model, prompt_ids(tokenizer, prompt), ids)
        expected = (covered + math.exp(sum(own) / (8 + len(answer)))) / 2
        assert value == pytest.approx(expected, abs=1e-5)


def test_positional_equals_a_hand_computation(backend: Any) -> None:
    tokenizer = backend.prompt_tokenizer.tokenizer
    reward = create_reward_function(
        backend.model, tokenizer, reward_type="supervised", alignment="positional"
    )
    context = prompt_ids(tokenizer, CHAT)
    answer = tokenizer("Paris is in France.", add_special_tokens=False)["input_ids"]
    completion = tokenizer("Madrid is", add_special_tokens=False)["input_ids"]
    assert len(completion) < len(answer)
    total = 0.0
    for t in range(len(completion)):
        seen = context + completion[:t]
        total += math.exp(reference_logprobs(backend.model, seen, [answer[t]])[0])
    found = reward(prompts=[CHAT], completions=["Madrid is"], answer=["Paris is in France."])
    assert found == [pytest.approx(total / len(answer), abs=1e-5)]


def test_ids_win_over_text_and_are_never_tokenised_again(backend: Any) -> None:
    tokenizer = backend.prompt_tokenizer.tokenizer
    text = "Paris"
    canonical = tokenizer(text, add_special_tokens=False)["input_ids"]
    spelled = [tokenizer.convert_tokens_to_ids(letter) for letter in text]
    assert tokenizer.decode(spelled) == tokenizer.decode(canonical)
    assert spelled != canonical
    reward = create_inverse_loss_reward(backend.model, tokenizer)
    found = reward(prompts=[CHAT], completions=["other text"], completion_ids=[spelled])[0]
    logprobs = reference_logprobs(backend.model, prompt_ids(tokenizer, CHAT), spelled)
    assert found == pytest.approx(sum(logprobs) / len(logprobs), abs=1e-5)


def test_a_model_without_an_adapter_that_should_be_judged_by_the_reference_warns_once(
    backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows: dict[str, Any] = {"prompts": ["Q"], "completions": ["A"]}
    rewards = {
        scorer: create_inverse_loss_reward(
            backend.model, backend.prompt_tokenizer.tokenizer, scored_by=scorer
        )
        for scorer in ("reference", "policy")
    }
    with caplog.at_level("WARNING"):
        values = [reward(**rows) for reward in rewards.values() for _ in range(2)]
        adapted = peft.get_peft_model(backend.model, peft.LoraConfig(target_modules=["q_proj"]))
        create_inverse_loss_reward(
            adapted, backend.prompt_tokenizer.tokenizer, scored_by="reference"
        )(**rows)
    assert values[1:] == values[:-1]
    assert [record.getMessage()[:57] for record in caplog.records] == [
        "scored_by: reference means the model without its adapter;"
    ]


def test_a_bos_in_the_text_is_not_doubled(backend: Any) -> None:
    tokenizer = backend.prompt_tokenizer.tokenizer
    ids = backend.prompt_tokenizer.encode_prompt("<s>Name a fruit.")
    assert list(ids) == tokenizer("<s>Name a fruit.", add_special_tokens=False)["input_ids"]


def test_truncation_is_known_for_ids_with_a_limit_only(backend: Any) -> None:
    tokenizer = backend.prompt_tokenizer.tokenizer
    ids = tokenizer("Paris is the capital", add_special_tokens=False)["input_ids"]
    ended = [*ids[:-1], tokenizer.eos_token_id]
    limited = create_inverse_loss_reward(backend.model, tokenizer, max_completion_length=len(ids))
    free = create_inverse_loss_reward(backend.model, tokenizer)
    text: dict[str, Any] = {
        "prompts": [CHAT] * 2,
        "completions": ["", ""],
        "completion_ids": [ids, ended],
    }
    cut, whole = limited(**text)
    assert cut == -10.0
    assert whole is not None
    assert whole > -10.0
    assert free(**text)[0] > -10.0  # type: ignore[operator]
    assert limited(prompts=[CHAT], completions=["Paris is the capital"])[0] > -10.0  # type: ignore[operator]


def test_the_last_sampled_token_counts(backend: Any) -> None:
    tokenizer = backend.prompt_tokenizer.tokenizer
    ids = tokenizer("Paris is", add_special_tokens=False)["input_ids"]
    reward = create_inverse_loss_reward(backend.model, tokenizer)
    first, second, with_eos = reward(
        prompts=[CHAT] * 3,
        completions=[""] * 3,
        completion_ids=[ids, [*ids[:-1], 7], [*ids, tokenizer.eos_token_id]],
    )
    assert len({first, second, with_eos}) == 3


def test_the_prompt_matters(backend: Any) -> None:
    reward = create_reward_function(
        backend.model, backend.prompt_tokenizer.tokenizer, reward_type="supervised"
    )
    one, other = reward(prompts=["A fruit?", "2 + 3?"], completions=["5", "5"], answer=["5", "5"])
    assert one != other


def test_message_completions_and_extra_columns(backend: Any) -> None:
    reward = create_reward_function(
        backend.model,
        backend.prompt_tokenizer.tokenizer,
        reward_type="supervised",
        answer_field="gold",
    )
    message = [{"role": "assistant", "content": "Paris"}]
    found = reward(prompts=[CHAT], completions=[message], gold=["Paris"], trainer_state=object())
    assert found == reward(prompts=[CHAT], completions=["Paris"], gold=["Paris"])


def test_lists_of_different_length_are_refused(backend: Any) -> None:
    reward = create_inverse_loss_reward(backend.model, backend.prompt_tokenizer.tokenizer)
    with pytest.raises(ValueError, match="2 prompts but 1 completions"):
        reward(prompts=["a", "b"], completions=["c"])
    with pytest.raises(ValueError, match="either config= or reward_type="):
        create_reward_function(backend.model, None, reward_type="supervised", config=[])


# -- the document's own code, word for word -------------------------------------------------------


def documents_inverse_loss(model: Any, tokenizer: Any, prompt: str, completion: str) -> float:
    text = prompt + completion
    inputs = tokenizer(text, return_tensors="pt").to(model.device)
    prompt_length = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        outputs = model(**inputs)
        shift_logits = outputs.logits[..., :-1, :]
        shift_labels = inputs["input_ids"][..., 1:]
        loss_fct = torch.nn.CrossEntropyLoss(reduction="none")
        token_losses = loss_fct(shift_logits.view(-1, shift_logits.size(-1)), shift_labels.view(-1))
        completion_losses = token_losses[prompt_length - 1 :]
        if len(completion_losses) == 0:
            return 0.0
        return float(-completion_losses.mean().item())


def documents_supervised(model: Any, tokenizer: Any, answer: str, completion: str) -> float:
    answer_tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
    completion_tokens = tokenizer(completion, add_special_tokens=False)["input_ids"]
    inputs = tokenizer(completion, return_tensors="pt").to(model.device)
    with torch.no_grad():
        outputs = model(**inputs)
        logits = outputs.logits[..., :-1, :]
    min_len = min(logits.shape[1], len(answer_tokens))
    if min_len == 0:
        return 0.0
    target = torch.tensor(answer_tokens[:min_len]).to(model.device)
    loss_fct = torch.nn.CrossEntropyLoss(reduction="mean")
    ce_loss = loss_fct(logits[0, :min_len], target).item()
    coverage = min(1.0, len(completion_tokens) / len(answer_tokens))
    return float(-ce_loss * coverage)


TEXTS = [
    ("What is the capital of France?", " The capital of France is Paris."),
    ("Answer: ", "Paris"),  # prompt and completion merge across the border
    ("Answer:", " 42"),
    ("Answer:", ""),
    ("", "Paris is"),
    ("Name", "x"),
]


def test_original_inverse_loss_is_the_documents_code(backend: Any) -> None:
    tokenizer = backend.prompt_tokenizer.tokenizer
    reward = create_reward_function(
        backend.model, tokenizer, reward_type="inverse_loss", formula="original"
    )
    found = reward(prompts=[p for p, _ in TEXTS], completions=[c for _, c in TEXTS])
    expected = [documents_inverse_loss(backend.model, tokenizer, p, c) for p, c in TEXTS]
    assert found == pytest.approx(expected, abs=1e-5)


def test_original_supervised_is_the_documents_code(backend: Any) -> None:
    tokenizer = backend.prompt_tokenizer.tokenizer
    reward = create_reward_function(
        backend.model, tokenizer, reward_type="supervised", formula="original"
    )
    completions = ["Paris", "The capital of France is Paris.", "x", "Paris is in"]
    answer = "Paris is in France."
    found = reward(prompts=["Q"] * 4, completions=completions, answer=[answer] * 4)
    expected = [documents_supervised(backend.model, tokenizer, answer, c) for c in completions]
    assert found == pytest.approx(expected, abs=1e-5)


def test_original_warns_once(backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        reward = create_inverse_loss_reward(
            backend.model, backend.prompt_tokenizer.tokenizer, formula="original"
        )
        for _ in range(3):
            reward(prompts=["a"], completions=["b"])
    assert [r.getMessage() for r in caplog.records if "original" in r.getMessage()] == [
        "reward inverse_loss uses formula: original, which rewards missing text; "
        "it is kept for comparison, see docs/rewards.md"
    ]

"""Rewards over plain text, user functions and thinking blocks, against numbers by hand."""

import gc
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from remote_trainer.config import parse_config
from remote_trainer.errors import RewardFunctionError, UserInputError
from remote_trainer.pipeline.check import check_config
from remote_trainer.records import Encoder, Row, Sample, ScoreRequest, Thinking, TokenIds
from remote_trainer.rewards import REWARDS, RewardConfig, RewardFunction, create_reward_function
from remote_trainer.rewards.base import Plan
from remote_trainer.rewards.reference_answer import CONNECTOR
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer


def encode(text: str, *, special_tokens: bool = False) -> TokenIds:
    """One id per character."""
    return tuple(ord(character) for character in text)


def sample(text: str, **fields: Any) -> Sample:
    ids = encode(text)
    return Sample("Q", (1,), "Q", (*ids, 0), ids, text, fields=fields)


def reward_of(**options: Any) -> RewardConfig:
    """Options are fields of the subclasses, which mypy does not see behind the base."""
    return RewardConfig(**options)


def values(samples: list[Sample], **options: Any) -> list[float | None]:
    """Rewards of samples by a reward that never asks a model."""
    plans = reward_of(**options).plans(samples, encode)
    assert all(plan is None or plan.requests == () for plan in plans)
    return [None if plan is None else plan.value() for plan in plans]


def one(text: str, answer: str | None = None, **options: Any) -> float | None:
    return values([sample(text, **({} if answer is None else {"answer": answer}))], **options)[0]


def test_token_f1_by_hand() -> None:
    assert one("The capital is Paris.", "paris", type="token_f1") == pytest.approx(2 / 5)
    assert one("a a b", "a b b", type="token_f1") == pytest.approx(2 * 2 / 6)
    assert one("Lyon", "Paris", type="token_f1") == 0.0
    assert one("!!", "?", type="token_f1") == 0.0
    assert one("Lyon", None, type="token_f1") is None


def test_exact_match_compares_words() -> None:
    assert one(" PARIS! ", "Paris", type="exact_match") == 1.0
    assert one("It is Paris", "Paris", type="exact_match") == 0.0


@pytest.mark.parametrize(
    ("text", "answer", "same"),
    [
        ("4 + 3 is 7\n#### 7", "7", 1.0),
        (r"so \boxed{1,234}", "1234", 1.0),
        ("1234.0", "1,234", 1.0),
        (r"\boxed{7} or 8", "8", 0.0),
        ("The answer is 7", "7", 0.0),  # a sentence is no mark
        ("so\n#### 7", "so\n#### 7", 1.0),
        ("<think>8?</think>7", "7", 1.0),  # without tokens for the tags
        ("<think>7", "7", 0.0),
    ],
)
def test_exact_match_compares_the_marked_answer(text: str, answer: str, same: float) -> None:
    assert one(text, answer, type="exact_match") == same


def test_marks_do_not_shorten_texts_that_overlap() -> None:
    assert one("x y\n#### c", "a b c", type="token_f1") == pytest.approx(2 * 1 / 6)


def test_majority_vote_counts_marked_answers() -> None:
    said = [r"I say \boxed{Rome}", "Hm.\n#### rome", "Paris"]
    assert values([sample(s) for s in said], type="majority_vote") == [1.0, 1.0, 0.0]


def test_chrf_by_hand() -> None:
    # 'ab' and 'abc': unigrams 2 of 2 and 2 of 3, bigrams 1 of 1 and 1 of 2; order 3 is missing on
    # one side. F = 5 P R / (4 P + R) of the means over orders.
    precision, recall = (1 + 1) / 2, (2 / 3 + 1 / 2) / 2
    expected = 5 * precision * recall / (4 * precision + recall)
    assert one("ab", "abc", type="chrf") == pytest.approx(expected)
    assert one("the same words", "the same words", type="chrf") == 1.0
    assert one("aaa", "bbb", type="chrf") == 0.0
    plain = one("a cat sat", "cat a sat", type="chrf")
    assert plain != one("a cat sat", "cat a sat", type="chrf", word_order=2)


def test_length_limit_by_hand() -> None:
    options: dict[str, Any] = {"type": "length_limit", "max_tokens": 4, "buffer": 8}
    assert [one("x" * n + ".", **options) for n in (1, 3, 5, 7, 11, 40)] == [
        0.0, 0.0, -0.25, -0.5, -1.0, -1.0,
    ]  # fmt: skip
    # 2 * 3 ids of the answer + 1 are free, the 9th and 8th cost an eighth each
    assert one("abcdefghi", "abc", type="length_limit", slack=1, buffer=8) == -0.25
    assert one("abc", None, type="length_limit") is None


def test_repetition_by_hand() -> None:
    assert one("a b c a b c", type="repetition") == pytest.approx(3 / 4 - 1)
    assert one("a b", type="repetition") == 0.0
    assert one("a b a b", type="repetition", n=2) == pytest.approx(2 / 3 - 1)


def test_regex_searches_or_matches_all() -> None:
    assert one("= 42", type="regex", pattern=r"\d+") == 1.0
    assert one("= 42", type="regex", pattern=r"\d+", match="fullmatch") == 0.0
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression: missing \), unterm"):
        reward_of(type="regex", pattern="(")


def test_majority_vote_counts_by_prompt() -> None:
    said = ["Paris", "paris.", "Lyon", "Nice", ""]
    assert values([sample(s) for s in said], type="majority_vote") == [1.0, 1.0, 0.0, 0.0, 0.0]
    other = Sample("R", (2,), "R", (76,), (76,), "Lyon")
    assert values([*[sample(s) for s in said], other], type="majority_vote")[-1] == 1.0
    tie = values([sample("a"), sample("b")], type="majority_vote")
    assert tie == [1.0, 1.0]  # no signal, and no arbitrary winner
    numbers = [sample(s) for s in ("2 + 2 is 4", "so 5", "4", "none")]
    extracted = values(numbers, type="majority_vote", extract=r"(\d)\b")
    assert extracted == [1.0, 0.0, 1.0, 0.0]


def test_chance_depends_on_the_batch_and_the_seed_alone() -> None:
    batch = [sample(text) for text in "abcd"]
    first = values(batch, type="random")
    assert values(batch, type="random") == first
    assert len(set(first)) == 4
    assert values(batch, type="random", seed=1) != first
    assert values([*batch[:3], sample("e")], type="random")[0] != first[0]
    many = values([sample(str(i)) for i in range(2000)], type="random")
    assert sum(v for v in many if v is not None) / 2000 == pytest.approx(0.5, abs=0.03)


# -- gates --------------------------------------------------------------------------------------

LOOP = "and so on and on " * 20


@pytest.mark.parametrize(
    ("gate", "invalid"),
    [
        ((), [False, False, True, False]),  # empty always
        (["ended"], [False, True, True, False]),
        (["not_looping"], [False, False, True, True]),
        ("not_looping", [False, False, True, True]),
        (True, [False, True, True, True]),
        (False, [False, False, True, False]),
    ],
)
def test_gates_floor_what_fails_them(gate: Any, invalid: list[bool]) -> None:
    ids = encode("cut")
    cut = Sample("Q", (1,), "Q", ids, ids, "cut", truncated=True)
    texts = [sample("fine"), cut, sample(" "), sample(LOOP)]
    reward = reward_of(type="inverse_loss", truncated="score", gate=gate)
    plans = reward.plans(texts, encode)
    assert [plan is not None and plan.invalid for plan in plans] == invalid
    assert [p.value() for p in plans if p and p.invalid] == [-10.0] * sum(invalid)


def test_a_gate_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserInputError, match=r"reward.0.gate.0: found 'long'; write 'ended'"):
        parse_config("reward: {type: supervised, gate: [long]}", "c")


# -- user functions -----------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Write a module into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))

    def _write(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(code)

    yield _write
    for name in ("my_rewards", "bad_rewards"):
        __import__("sys").modules.pop(name, None)


def test_a_user_function_is_called_as_trl_calls_it(module: Any, llama: Any) -> None:
    module(
        "my_rewards",
        "calls = []\n"
        "def short(prompts, completions, completion_ids, answer, **kwargs):\n"
        "    calls.append((prompts, completions, completion_ids, answer, kwargs))\n"
        "    return [None if a == '?' else len(ids) for a, ids in zip(answer, completion_ids)]\n",
    )
    reward = create_reward_function(
        llama.model, llama.prompt_tokenizer.tokenizer, function="my_rewards:short"
    )
    chat = [{"role": "user", "content": "Hi"}]
    found = reward(
        prompts=[chat, "Hi"], completions=["4", "4"], completion_ids=[[5, 6], [7]],
        answer=["4", "?"], kind=["a", "b"],
    )  # fmt: skip
    assert found == [2.0, None]
    import my_rewards  # type: ignore[import-not-found]

    prompts, completions, ids, answers, others = my_rewards.calls[0]
    assert prompts == [chat, "Hi"]
    text = llama.prompt_tokenizer.decode([5, 6])
    assert completions == [
        [{"role": "assistant", "content": text}],
        llama.prompt_tokenizer.decode([7]),
    ]
    assert (ids, answers, others["kind"]) == ([[5, 6], [7]], ["4", "?"], ["a", "b"])
    assert others.keys() == {"kind", "trainer_state", "log_extra", "log_metric"}


def test_a_user_function_joins_a_weighted_sum(module: Any, llama: Any) -> None:
    module(
        "my_rewards", "def words(completions, **_): return [len(c.split()) for c in completions]"
    )
    config = parse_config(
        "reward: [{type: exact_match}, {function: 'my_rewards:words', weight: 0.5}]", "c"
    )
    function = RewardFunction(llama, config.reward)
    [judged] = function.judge(function.samples([Row("Q", {"answer": "a b"}, "")], ["a b"]))
    assert judged.rewards == {"exact_match": 1.0, "function": 2.0}
    assert judged.reward == 2.0


def test_a_user_functions_gate_needs_a_range(module: Any) -> None:
    module("my_rewards", "def f(completions, **_): return [0.5] * len(completions)")
    with pytest.raises(ValueError, match=r"gate needs range: \[low, high\]"):
        reward_of(function="my_rewards:f", gate=True)
    options: dict[str, Any] = {"function": "my_rewards:f", "gate": True, "range": (-1, 1)}
    assert values([sample("fine"), sample("")], **options) == [0.5, -1.0]
    with pytest.raises(ValueError, match=r"'f' is not a path of a function; write package.mod"):
        reward_of(function="f")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(**_): return [1.0]", r"my_rewards:f returned 1 value for 2 completions"),
        ("def f(**_): return ['a', 1.0]", r"my_rewards:f returned 'a' in its list"),
        ("def f(**_): return 1 / 0", r"f raised ZeroDivisionError: .* \(my_rewards.py:1\)"),
        ("def g(**_): return 1", r"my_rewards:f cannot be found: module 'my_rewards' has no"),
        ("f = 3", r"my_rewards:f is a int, not callable"),
    ],
)
def test_a_broken_user_function_is_named(module: Any, code: str, message: str) -> None:
    module("my_rewards", code)
    with pytest.raises(RewardFunctionError, match=message):
        values([sample("a"), sample("b")], function="my_rewards:f")


def test_check_finds_a_missing_user_function(module: Any, tmp_path: Path) -> None:
    config = parse_config(
        "{reward: [{type: supervised}, {function: 'nowhere.at_all:f'}], data: {train: none.jsonl}}",
        "c",
    )
    with pytest.raises(UserInputError) as caught:
        check_config(config)
    assert any(
        p.where == "reward.1" and "nowhere.at_all:f cannot be found: No module" in p.message
        for p in caught.value.problems
    )


# -- a new reward -------------------------------------------------------------------------------


def test_a_new_reward_is_a_class_and_a_line(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        _judge_by_vowels(llama, patch)
    gc.collect()  # a class counts among the rewards until it is gone
    assert "vowels" not in {kind.model_fields["type"].default for kind in _kinds()}


def _kinds() -> list[type[RewardConfig]]:
    return RewardConfig.__subclasses__()


def _judge_by_vowels(llama: Any, patch: pytest.MonkeyPatch) -> None:
    class Vowels(RewardConfig):
        """Share of vowels."""

        type: Literal["vowels"] = "vowels"

        def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
            text = sample.answer_text
            return Plan.constant(sum(c in "aeiou" for c in text) / len(text))

    patch.setitem(REWARDS, "vowels", Vowels)
    reward = create_reward_function(
        llama.model, llama.prompt_tokenizer.tokenizer,
        config=[{"type": "vowels", "weight": 2.0}, {"type": "inverse_loss"}],
    )  # fmt: skip
    plain = create_reward_function(llama.model, llama.prompt_tokenizer.tokenizer)
    found = reward(prompts=["Q", "Q"], completions=["aab", ""])
    alone = plain(prompts=["Q", "Q"], completions=["aab", ""])
    assert alone[0] is not None
    assert found == [pytest.approx(2 * 2 / 3 + alone[0]), -10.0]


# -- thinking blocks ----------------------------------------------------------------------------


@pytest.fixture
def thinker(llama: Any) -> Any:
    """The tiny Llama with tokens that mark a thinking block."""
    tokenizer = llama.prompt_tokenizer.tokenizer
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=True)
    llama.model.resize_token_embeddings(len(tokenizer))
    llama.prompt_tokenizer = PromptTokenizer(tokenizer)
    return llama


def test_text_rewards_look_behind_the_thinking_block(thinker: Any) -> None:
    reward = RewardFunction(thinker, [reward_of(type="exact_match")])
    said = ["<think>is it 5? no</think>\n\n4", "<think>4", "4"]
    judged = reward.judge(reward.samples([Row("Q", {"answer": "4"}, "")] * 3, said))
    assert [j.reward for j in judged] == [1.0, 0.0, 1.0]


def test_the_reference_goes_behind_a_closed_thinking_block(thinker: Any) -> None:
    prompt_tokenizer = thinker.prompt_tokenizer
    asked: list[ScoreRequest] = []

    def score(requests: list[ScoreRequest], on_progress: Any) -> list[tuple[float, ...]]:
        asked.extend(requests)
        return [(-1.0,) * len(request.target) for request in requests]

    stub: Any = SimpleNamespace(prompt_tokenizer=prompt_tokenizer, score=score)
    reward = RewardFunction(stub, [reward_of(type="answer_likelihood", baseline=True)])
    answer, connector = prompt_tokenizer.encode("4"), prompt_tokenizer.encode(CONNECTOR)
    close = (
        *prompt_tokenizer.encode("\n"),
        *prompt_tokenizer.encode("</think>"),
        *prompt_tokenizer.encode("\n\n"),
    )

    def contexts(prompt: str, completion: str) -> list[TokenIds]:
        asked.clear()
        reward.judge(reward.samples([Row(prompt, {"answer": "4"}, "")], [completion]))
        assert all(request.target == answer for request in asked)
        return [request.context for request in asked]

    prompt, done = (
        prompt_tokenizer.encode_prompt("Q"),
        prompt_tokenizer.encode("<think>hm</think>4"),
    )
    assert contexts("Q", "<think>hm</think>4") == [prompt + done + connector, prompt + connector]
    still = prompt_tokenizer.encode("<think>hm")
    assert contexts("Q", "<think>hm") == [prompt + still + close + connector, prompt + connector]
    opened = prompt_tokenizer.encode_prompt("Q<think>")
    rest = prompt_tokenizer.encode("hm</think>4")
    assert contexts("Q<think>", "hm</think>4") == [
        opened + rest + connector,
        opened + close + connector,
    ]


def test_coverage_counts_what_stands_behind_the_block(thinker: Any) -> None:
    prompt_tokenizer = thinker.prompt_tokenizer
    reward = RewardFunction(thinker, [reward_of(type="supervised")])
    texts = ["<think>long thoughts</think>", "<think>long thoughts", "<think></think>4"]
    judged = reward.judge(reward.samples([Row("Q", {"answer": "4"}, "")] * 3, texts))
    assert [j.reward for j in judged[:2]] == [0.0, 0.0]
    assert judged[2].reward is not None
    assert judged[2].reward > 0
    ids = prompt_tokenizer.encode("<think>a</think>4 5")
    thinking = prompt_tokenizer.thinking(prompt_tokenizer.encode_prompt("Q"), ids)
    assert prompt_tokenizer.decode(ids[thinking.length :]) == "4 5" == thinking.answer_text
    assert prompt_tokenizer.thinking((1,), prompt_tokenizer.encode("no block")) == Thinking()


def test_positional_alignment_starts_behind_the_block(thinker: Any) -> None:
    prompt_tokenizer = thinker.prompt_tokenizer
    config = reward_of(type="supervised", alignment="positional")
    function = RewardFunction(thinker, [config])
    [thought] = function.samples([Row("Q", {"answer": "4"}, "")], ["<think>a</think>4"])
    [plan] = config.plans([thought], prompt_tokenizer.encode)
    assert plan is not None
    seen = prompt_tokenizer.encode_prompt("Q") + prompt_tokenizer.encode("<think>a</think>")
    assert plan.requests[0].context == seen
    [judged] = function.judge([thought])
    expected = thinker.score([plan.requests[0]])[0][0]
    assert judged.reward == pytest.approx(math.exp(expected))

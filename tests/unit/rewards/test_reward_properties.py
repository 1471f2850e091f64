"""The properties P1 to P21 of `remote_trainer.rewards.properties`, for every reward.

Where a reward's `exceptions` name a property, the same test shows that it does not hold. P2, P16,
P17 and P21 speak of a reference answer, so they are tested on rewards that have one; P6 on those
and on rewards that ask the model; P8 to P12 on rewards that ask the model. The shipped configs are
excused from nothing.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from word_models import (
    COUNTRIES,
    EOS,
    FACTS,
    HALF,
    JUNK,
    PREAMBLE,
    QUARTER,
    QUESTION,
    RIGHT,
    WHERE_IS_PARIS,
    WRONG,
    ByHeart,
    CopyLM,
    Fixed,
    KnowingLM,
    V,
    Words,
)

from remote_trainer.config import load_config
from remote_trainer.config.schema import GroupFilterSettings
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.records import (
    LoadSettings,
    RewardResult,
    Row,
    ScoreRequest,
    TokenIds,
)
from remote_trainer.rewards import REWARDS, RewardConfig, RewardFunction
from remote_trainer.rewards.formulas.supervised import Supervised
from remote_trainer.rewards.properties import PROPERTIES
from remote_trainer.rewards.reference_answer import CONNECTOR
from remote_trainer.rewards.self_test import self_test
from remote_trainer.trainer.groups import GroupFilter, spread

ROUNDING = 1e-9
CONFIGS = Path(__file__).parents[3] / "configs"

few_examples = settings(max_examples=30, deadline=None, derandomize=True)

# -- the rewards ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One reward of the catalogue, or the rewards of a shipped config."""

    name: str
    rewards: tuple[RewardConfig, ...]
    shipped: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def exceptions(self) -> Mapping[str, str]:
        return {} if self.shipped else self.rewards[0].exceptions

    @property
    def promises_nothing(self) -> bool:
        return set(self.exceptions) == set(PROPERTIES)

    @property
    def minimum(self) -> float:
        return sum(reward.weight * reward.minimum for reward in self.rewards)

    @property
    def maximum(self) -> float:
        return sum(reward.weight * reward.maximum for reward in self.rewards)

    @property
    def judged_span(self) -> float:
        """How far the parts that ask the model can move; the others judge the text alone."""
        asking = (reward for reward in self.rewards if Case("", (reward,)).asks_model)
        return sum(reward.weight * (reward.maximum - reward.minimum) for reward in asking)

    @property
    def has_reference(self) -> bool:
        return any(reward.needs_answer for reward in self.rewards)

    @property
    def connector(self) -> str:
        """What its first reward that has one puts in front of the answer."""
        own = (getattr(reward, "connector", None) for reward in self.rewards)
        return next((connector for connector in own if connector is not None), CONNECTOR)

    @cached_property
    def asks_model(self) -> bool:
        model = Words()
        judge(self, model, [RIGHT])
        return bool(model.requests)

    @property
    def reads_completion(self) -> bool:
        """It judges the ids of the completion themselves, end-of-sequence included."""
        return self.asks_model and (not self.has_reference or self.is_fluent)

    @property
    def is_fluent(self) -> bool:
        """It judges the answer behind the completion, and the completion itself beside that."""
        reward = self.rewards[0]
        return (
            isinstance(reward, Supervised)
            and (reward.formula, reward.alignment) == ("coverage_prob", "after_completion")
            and reward.fluency_weight > 0
        )

    @property
    def model(self) -> Any:
        """An honest model; where completions are judged in place, it must know what comes next."""
        in_place = not self.has_reference or "positional" in self.name
        return CopyLM(known=0.3 if in_place else 0.0)


def reward_results(
    case: Case,
    model: Any,
    said: Sequence[str | TokenIds],
    answer: Any = RIGHT,
    prompt: str = QUESTION,
    limit: int | None = None,
) -> list[RewardResult]:
    """Judge completions of one prompt; texts get an end-of-sequence id, ids are as sampled."""
    function, prompt_tokenizer = RewardFunction(model, case.rewards, limit), model.prompt_tokenizer
    row = prompt_tokenizer.encode_row(Row(prompt, {"answer": answer}, ""))
    end = prompt_tokenizer.eos_ids[:1]
    all_ids = [
        (*prompt_tokenizer.encode(one), *end) if isinstance(one, str) else one for one in said
    ]
    return function.judge([function.sample(row, ids) for ids in all_ids])


def judge(case: Case, model: Any, said: Sequence[str | TokenIds], **options: Any) -> list[float]:
    rewards = [
        reward_result.reward for reward_result in reward_results(case, model, said, **options)
    ]
    return [reward for reward in rewards if reward is not None]


def users_function(completions: Sequence[str], **_: Any) -> list[float]:
    """What `type: function` calls."""
    return [float(len(completion)) for completion in completions]


SUPERVISED, LIKELIHOOD = {"type": "supervised"}, {"type": "answer_likelihood"}
POSITIONAL = {**SUPERVISED, "alignment": "positional"}
PLAIN = "self_certainty token_f1 chrf exact_match majority_vote length_limit repetition random"
OPTIONS: dict[str, dict[str, Any]] = {
    **{kind: {"type": kind} for kind in ("inverse_loss", *PLAIN.split())},
    "inverse_loss original": {"type": "inverse_loss", "formula": "original"},
    "supervised coverage_prob": {**SUPERVISED, "formula": "coverage_prob"},
    "supervised coverage_ce": {**SUPERVISED, "formula": "coverage_ce"},
    "supervised coverage_information": {**SUPERVISED, "formula": "coverage_information"},
    "supervised original": {**SUPERVISED, "formula": "original"},
    "positional coverage_prob": {**POSITIONAL, "formula": "coverage_prob"},
    "positional coverage_ce": {**POSITIONAL, "formula": "coverage_ce"},
    "answer_likelihood mean_prob": {**LIKELIHOOD, "formula": "mean_prob"},
    "answer_likelihood mean_logprob": {**LIKELIHOOD, "formula": "mean_logprob"},
    "answer_likelihood baseline": {**LIKELIHOOD, "baseline": True},
    "regex": {"type": "regex", "pattern": r"^\w+"},
    "function": {"type": "function", "function": f"{__name__}:users_function"},
}


def shipped(name: str) -> Case:
    rewards = load_config(CONFIGS / name).reward
    if any(reward.needs_answer for reward in rewards):
        # What it says of answers; the fluency beside that promises what unsupervised.yaml does.
        rewards = [reward for reward in rewards if reward.type != "inverse_loss"]
    return Case(name, tuple(rewards), shipped=True)


CASES = [
    *(Case(name, (RewardConfig(**options),)) for name, options in OPTIONS.items()),
    shipped("supervised.yaml"),
    shipped("unsupervised.yaml"),
]


def of_each(
    key: str, where: Callable[[Case], bool] = lambda case: True, excused: bool = True
) -> pytest.MarkDecorator:
    """Run a test for each reward, if ``excused`` also for those that name ``key``."""
    cases = [
        case
        for case in CASES
        if where(case) and (key not in case.exceptions or (excused and not case.promises_nothing))
    ]
    return pytest.mark.parametrize("case", cases, ids=str)


has_reference, asks_model = attrgetter("has_reference"), attrgetter("asks_model")


@contextlib.contextmanager
def promise(case: Case, key: str) -> Iterator[None]:
    """The property holds; where it is an exception of the reward, it really does not."""
    with known_failure(key in case.exceptions):
        yield


def known_failure(expected: bool) -> contextlib.AbstractContextManager[Any]:
    """What stands inside holds, or, where a failure is ``expected``, really does not."""
    return pytest.raises(AssertionError) if expected else contextlib.nullcontext()


# -- what the catalogue declares ------------------------------------------------------------------


def test_every_reward_and_every_property_is_tested() -> None:
    assert {reward.type for case in CASES for reward in case.rewards} == set(REWARDS)
    tested = {name.split("_")[1].upper() for name in globals() if name.startswith("test_p")}
    assert tested == set(PROPERTIES)


@pytest.mark.parametrize("case", [case for case in CASES if not case.shipped], ids=str)
def test_nobody_is_excused_from_more_than_its_kind_explains(case: Case) -> None:
    named = set(case.exceptions)
    kind, _, option = case.name.partition(" ")
    if option == "original" or kind in ("random", "function"):
        assert case.promises_nothing
    elif case.asks_model:
        known = {"self_certainty": {"P4"}, "positional": {"P6", "P16"}, "inverse_loss": set()}
        expected = {"P2", "P21"} if case.is_fluent else {"P17"}
        assert named == known.get(kind, expected)
    else:
        assert named < set(PROPERTIES)


# -- the properties -------------------------------------------------------------------------------

some_words = st.lists(
    st.sampled_from([*RIGHT.split(), *WRONG.split(), *JUNK[:9], "?"]), max_size=30
)


@of_each("P1", excused=False)
def test_p1_empty_gets_the_minimum_and_less_than_a_right_one(case: Case) -> None:
    function = RewardFunction(case.model, case.rewards)
    (right,) = function.samples([Row(QUESTION, {"answer": RIGHT}, "")], [RIGHT])
    blank = replace(right, completion_text=" \n")  # ids of white space
    said: list[str | TokenIds] = [RIGHT, RIGHT, WRONG, "", ()]
    values = judge(case, case.model, said)
    assert values[3:] == [case.minimum] * 2
    assert [reward_result.reward for reward_result in function.judge([blank])] == [case.minimum]
    assert values[0] > case.minimum


@of_each("P1", excused=False)
@given(words=some_words)
@few_examples
def test_p1_nothing_scores_below_empty(case: Case, words: list[str]) -> None:
    empty, other = judge(case, case.model, ["", " ".join(words)])
    assert empty <= other


@pytest.mark.parametrize("name", ["supervised original", "inverse_loss original"])
def test_p1_empty_beats_the_right_answer_where_the_formula_is_original(name: str) -> None:
    (case,) = (case for case in CASES if case.name == name)
    empty, right = judge(case, CopyLM(), ["", RIGHT])
    assert empty > right


@of_each("P2", has_reference)
def test_p2_more_of_the_right_answer_is_never_worse(case: Case) -> None:
    words = RIGHT.split()
    values = judge(case, case.model, [" ".join(words[:k]) for k in range(1, len(words) + 1)])
    with promise(case, "P2"):
        assert values == sorted(values)
        assert values[-1] > values[0]


COVERAGE = ["supervised coverage_ce", "supervised.yaml"]
POSITION = ["positional coverage_prob", "positional coverage_ce"]


@of_each("P3", excused=False)
@given(junk=st.lists(st.sampled_from(JUNK), min_size=1, unique=True))
@few_examples
def test_p3_junk_behind_the_answer_does_not_pay(case: Case, junk: list[str]) -> None:
    alone, behind = judge(case, case.model, [RIGHT, " ".join([RIGHT, *junk])])
    assert behind <= alone + ROUNDING


@of_each("P3")
def test_p3_junk_scores_below_a_quarter_of_the_answer(case: Case) -> None:
    (junk,), (quarter,) = (judge(case, case.model, [one]) for one in (" ".join(JUNK[:8]), QUARTER))
    with promise(case, "P3"):
        assert junk < quarter


# Two failures of coverage by length that the catalogue states; all other rewards are free of them.


@of_each("P3", excused=False)
def test_p3_junk_behind_a_part_of_the_answer_pays_by_coverage_alone(case: Case) -> None:
    with known_failure(case.name in COVERAGE + POSITION):
        for count in (1, 2, 4, 10, 60):
            alone, behind = judge(case, case.model, [HALF, " ".join([HALF, *JUNK[:count]])])
            assert behind <= alone + ROUNDING


@of_each("P3", asks_model, excused=False)
def test_p3_junk_beats_a_quarter_of_an_easy_answer_by_coverage_alone(case: Case) -> None:
    """The model knows how the answer goes on once it has begun."""
    with known_failure(case.name in COVERAGE):
        junk, quarter = judge(case, CopyLM(known=0.3), [" ".join(JUNK[:8]), QUARTER])
        assert junk < quarter


logprobs = st.sampled_from([0.0, -1e-300, -1e-9, -50.0, -1e9, -math.inf]) | st.floats(-100.0, 0.0)


@of_each("P4", excused=False)
@given(
    values=st.lists(logprobs, min_size=1, max_size=12), words=some_words, length=st.integers(1, 8)
)
@example(values=[-math.inf], words=["an"], length=7)  # 1/7 * -5 - 6/7 * 5 rounds below -5
@few_examples
def test_p4_values_lie_in_the_declared_range(
    case: Case, values: list[float], words: list[str], length: int
) -> None:
    answer = " ".join(RIGHT.split()[:length])
    (value,) = judge(case, Fixed(values), [" ".join(words)], answer=answer)
    assert case.minimum <= value <= case.maximum


@pytest.mark.parametrize("c_max", [5.0, 50.0, 5000.0])
@pytest.mark.parametrize("certainty", [1e9, math.inf])
def test_p4_self_certainty_is_bounded_by_its_cap_alone(c_max: float, certainty: float) -> None:
    reward = RewardConfig(type="self_certainty", c_max=c_max)  # type: ignore[call-arg]
    assert judge(Case("", (reward,)), Fixed([certainty]), [RIGHT]) == [c_max]


@of_each("P5", excused=False)
@given(count=st.integers(0, 4), answer_count=st.integers(1, 3), ended=st.booleans())
@few_examples
def test_p5_short_inputs_give_finite_values(
    case: Case, count: int, answer_count: int, ended: bool
) -> None:
    model, answer = case.model, " ".join(RIGHT.split()[:answer_count])
    (value,) = judge(case, model, [model.encode(RIGHT)[:count] + (EOS,) * ended], answer=answer)
    assert math.isfinite(value)
    assert value == case.minimum or count > 0


@of_each("P6", lambda case: case.has_reference or case.asks_model)
def test_p6_one_token_answers_teach(case: Case) -> None:
    options: dict[str, Any] = {"answer": "France", "prompt": WHERE_IS_PARIS}
    group = reward_results(case, case.model, ["France", "Spain"], **options)
    with promise(case, "P6"):
        assert group[0].reward != group[1].reward
        assert GroupFilter(GroupFilterSettings()).keep([spread(group)]) == [True]


@of_each("P7")
def test_p7_the_prompt_matters(case: Case) -> None:
    one, other = (judge(case, case.model, [RIGHT], prompt=p) for p in (QUESTION, "What is that ?"))
    with promise(case, "P7"):
        assert one != pytest.approx(other, abs=1e-6)


@of_each("P8", asks_model, excused=False)
def test_p8_alignment_is_exact(case: Case) -> None:
    words = RIGHT.split()
    assert judge(case, ByHeart(case.connector), [RIGHT]) == [pytest.approx(case.maximum, abs=2 / V)]
    for moved in ([*words[1:], words[0]], [words[-1], *words[:-1]]):
        completion = " ".join(moved) if case.reads_completion else RIGHT
        (value,) = judge(case, ByHeart(case.connector), [completion], answer=" ".join(moved))
        assert value < case.maximum - case.judged_span / 2


@of_each("P9", asks_model, excused=False)
def test_p9_a_bos_token_in_front_does_not_matter(case: Case) -> None:
    columns: dict[str, Any] = {"prompts": [QUESTION], "completions": [HALF], "answer": [RIGHT]}
    models: list[Any] = [CopyLM(adds_bos=True, known=0.3), CopyLM(known=0.3)]
    with_bos, without = (RewardFunction(model, case.rewards)(**columns)[0] for model in models)
    assert with_bos == pytest.approx(without, abs=1e-3)


@of_each("P13", lambda case: case.asks_model and "positional" not in case.name, excused=False)
def test_p13_the_last_word_counts(case: Case) -> None:
    """Not in positional alignment, which judges the place of each id and never reads the last."""
    words = RIGHT.split()
    one, other = judge(case, case.model, [RIGHT, " ".join([*words[:-1], "hut"])])
    assert one != pytest.approx(other, abs=1e-6)


# -- on real models and tokenizers ----------------------------------------------------------------


class Noting(TransformersBackend):
    """Notes what is asked of it, and what it answers."""

    asked: Sequence[tuple[ScoreRequest, tuple[float, ...]]] = ()

    def score(self, requests: Sequence[ScoreRequest], on_progress: Any = None) -> Any:
        answers = super().score(requests)
        self.asked = [*self.asked, *zip(requests, answers, strict=True)]
        return answers


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> TransformersBackend:
    return TransformersBackend.load(tiny_folder, LoadSettings())


def variant(tiny: TransformersBackend, max_tokens: int = 8192, **changes: Any) -> Noting:
    """The same model with a tokenizer of other settings."""
    tokenizer = copy.deepcopy(tiny.prompt_tokenizer.tokenizer)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return Noting(tiny.model, tokenizer, max_tokens_per_batch=max_tokens)


def assert_scored_as_given(
    case: Case, tiny: TransformersBackend, prompt: str, ids: TokenIds
) -> None:
    """The model read the prompt's ids, then ``ids``; and gave one number for each id asked."""
    model, answer = variant(tiny), "Paris is the capital of France, in the west."
    judge(case, model, [ids], answer=answer, prompt=prompt)
    request, scores = model.asked[0]
    seen = request.context + request.continuation
    prompt_ids, answer_ids = (
        tiny.prompt_tokenizer.encode_prompt(prompt),
        tiny.prompt_tokenizer.encode(answer),
    )
    assert all(other.context[: len(prompt_ids)] == prompt_ids for other, _ in model.asked)
    assert seen[: len(prompt_ids) + len(ids)] == prompt_ids + ids
    assert request.target in (ids, answer_ids, answer_ids[: len(ids)])
    assert len(scores) == len(request.target)


@of_each("P10", asks_model, excused=False)
def test_p10_the_border_of_prompt_and_completion_does_not_matter(
    case: Case, tiny: TransformersBackend
) -> None:
    borders = [("Answer: ", "Paris"), ("Answer:", "Paris"), ("Answer:", " Paris"), ("The", " 42")]
    for prompt, completion in borders:
        assert_scored_as_given(case, tiny, prompt, tiny.prompt_tokenizer.encode(completion))


@of_each("P11", asks_model, excused=False)
def test_p11_the_ids_that_were_sampled_are_scored(case: Case, tiny: TransformersBackend) -> None:
    spelled = tuple(tiny.prompt_tokenizer.tokenizer.convert_tokens_to_ids(list("Paris")))
    assert tiny.prompt_tokenizer.decode(spelled) == "Paris"
    assert tiny.prompt_tokenizer.encode("Paris") != spelled
    assert_scored_as_given(case, tiny, "Answer:", spelled)


@of_each("P12", asks_model, excused=False)
def test_p12_padding_and_batching_do_not_matter(case: Case, tiny: TransformersBackend) -> None:
    completions = ["Paris", " The capital of France is Paris.", "xyz 123", "5", "An apple", "Q?"]
    columns: dict[str, Any] = {
        "prompts": ["What is the capital of France?", "2 + 3?"] * 4,
        "completions": [*completions, "Madrid is in Spain. " * 3, "no"],
        "answer": ["Paris, in the middle of France", "5", "42", "a fruit"] * 2,
    }
    expected = RewardFunction(variant(tiny, max_tokens=1), case.rewards)(**columns)
    for changes in (
        {"padding_side": "left"},
        {"padding_side": "right"},
        {"pad_token": tiny.prompt_tokenizer.tokenizer.eos_token},
    ):
        found = RewardFunction(variant(tiny, **changes), case.rewards)(**columns)
        assert found == pytest.approx(expected, abs=1e-5)


@of_each("P13", excused=False)
def test_p13_the_end_of_sequence_counts_once(case: Case, tiny: TransformersBackend) -> None:
    (eos,) = tiny.prompt_tokenizer.eos_ids
    ids = tiny.prompt_tokenizer.encode("A fruit is an apple; 2 + 3 is what?")[
        :14
    ]  # not free of a price
    found = []
    for pad in (
        tiny.prompt_tokenizer.tokenizer.pad_token,
        tiny.prompt_tokenizer.tokenizer.eos_token,
    ):
        model = variant(tiny, pad_token=pad)
        ended, plain = (
            judge(case, model, [one], answer="5", prompt="2 + 3?")[0] for one in ((*ids, eos), ids)
        )
        assert (ended == pytest.approx(plain)) == (not case.reads_completion)
        found.append(ended)
        for request, _ in model.asked[case.is_fluent :][:1]:  # the answer is asked for first
            assert request.target.count(eos) == case.reads_completion
            assert eos not in request.context
    assert found[0] == pytest.approx(found[1], abs=1e-5)


# -- on the small language again ------------------------------------------------------------------


@of_each("P14", excused=False)
def test_p14_a_truncated_completion_gets_the_minimum(case: Case) -> None:
    model = case.model
    cut, ended = model.encode(f"{RIGHT} today"), (*model.encode(RIGHT), EOS)
    assert judge(case, model, [cut], limit=len(cut)) == [case.minimum]
    (value,) = judge(case, model, [ended], limit=len(ended))
    assert value > case.minimum


word = st.text("abcdefghij", min_size=1, max_size=8)


@of_each("P15", excused=False)
@given(
    phrase=st.lists(word, min_size=1, max_size=6),
    start=st.sampled_from(["", HALF]),
    limit=st.integers(60, 200),
)
@few_examples
def test_p15_a_loop_gets_the_minimum(case: Case, phrase: list[str], start: str, limit: int) -> None:
    model = case.model
    ids = model.encode(" ".join(islice(cycle(phrase), limit)))
    ids = (model.encode(start) + ids)[:limit]
    said: list[str | TokenIds] = [ids, (*ids[:-1], EOS)]
    assert judge(case, model, said, limit=limit) == [case.minimum] * 2


@of_each("P15", lambda case: case.asks_model and case.maximum == 0, excused=False)
def test_p15_also_where_the_loop_itself_is_worth_exactly_zero(case: Case) -> None:
    ungated = tuple(reward.model_copy(update={"gate": ()}) for reward in case.rewards)
    loop = "so it goes on " * 20
    assert judge(Case("", ungated), Fixed([0.0]), [loop]) == [0.0]
    assert judge(case, Fixed([0.0]), [loop]) == [case.minimum]


@of_each("P16", has_reference)
@pytest.mark.parametrize("count", [1, 5, 20])
def test_p16_the_place_of_the_right_answer_does_not_matter(case: Case, count: int) -> None:
    preamble = PREAMBLE.split()[:count]
    right, wrong = judge(case, case.model, [" ".join([*preamble, one]) for one in (RIGHT, WRONG)])
    with promise(case, "P16"):
        assert right > wrong + ROUNDING


@of_each("P17", has_reference)
def test_p17_naming_every_candidate_does_not_beat_the_right_answer(case: Case) -> None:
    options: dict[str, Any] = {"answer": "France", "prompt": WHERE_IS_PARIS}
    with promise(case, "P17"):
        for model in (case.model, KnowingLM()):
            right, hedge = judge(case, model, ["France", COUNTRIES], **options)
            assert hedge <= right


@of_each("P18", excused=False)
def test_p18_a_group_without_differences_trains_nothing(case: Case) -> None:
    for one in (RIGHT, WRONG, ""):
        group = reward_results(case, case.model, [one] * 8)
        assert GroupFilter(GroupFilterSettings()).keep([spread(group)]) == [False]


@of_each("P19", excused=False)
@pytest.mark.parametrize("answer", [None, "", " \n", {"a": 5}, []], ids=repr)
def test_p19_what_cannot_be_judged_gives_none(case: Case, answer: Any) -> None:
    summed = Case("", (*case.rewards, RewardConfig(type="inverse_loss")))
    for each in (case, summed):
        for said in ([RIGHT], [""]):
            (reward_result,) = reward_results(each, case.model, said, answer=answer)
            assert (reward_result.reward is None) == case.has_reference


@of_each("P20")
def test_p20_the_other_completions_do_not_matter(case: Case) -> None:
    said = [RIGHT, WRONG, RIGHT, HALF, "", "France", RIGHT]
    with promise(case, "P20"):
        together = judge(case, case.model, said)
        assert together == [judge(case, case.model, [one])[0] for one in said]


@of_each("P21", has_reference)
def test_p21_a_right_answer_scores_above_a_wrong_one(case: Case) -> None:
    model = case.model
    rows = [
        model.encode_row(Row(question, {"answer": answer}, "f:1"))
        for question, answer in FACTS.items()
    ]
    found = self_test(RewardFunction(model, case.rewards), rows)
    assert found is not None
    with promise(case, "P21"):
        assert found.right_above_wrong == found.rows == len(FACTS)

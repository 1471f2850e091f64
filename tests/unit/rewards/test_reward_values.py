"""Every reward against `reference_rewards`, a second implementation that shares no code with it."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import torch
from reference_rewards import CONNECTOR, Prompt, Reference, Row, with_adapter
from torch.nn.utils.rnn import pad_sequence

from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.inference.row_paths import RowPaths
from remote_trainer.records import AdapterSettings, LoadSettings, Measure, Scorer, ScoreRequest
from remote_trainer.records import Row as DataRow
from remote_trainer.rewards import REWARDS, RewardFunction, create_reward_function

TOLERANCE = 1e-4
"""float32 against float64. Measured: at most 6e-6 nats for a token, 3e-6 for a reward."""
BF16_NATS = 0.1
"""bfloat16 against float64 with the same weights, for rewards in nats. Measured: at most 0.036
(supervised, coverage_ce, an answer of one token); 0.017 for means over a completion."""
BF16_SHARE = 0.05
"""The same for rewards in [0, 1]. Measured: at most 0.020 (coverage_information, a ratio of two
losses); 0.0091 for probabilities and scaled log-probabilities."""

LONG = "Name a fruit. What is the capital of France? The capital of France is Paris. Answer:"
PROMPTS: list[Prompt] = [
    LONG,
    "Answer: ",  # ends in a space, which would merge with the completion
    [{"role": "user", "content": LONG.removesuffix(" Answer:")}],
    [
        {"role": "system", "content": "The answer."},
        {"role": "user", "content": "What is 2 + 3? Answer: 5."},
    ],
    "<s>Madrid is the capital of Spain. What is the capital of France? Name a fruit. An apple",
]
STORY = (
    "The capital of France is Paris. An apple is a fruit. The answer is 42; 2 + 3 is 5, and Madrid"
    " is the capital of Spain. Name a fruit? What of zebras, quartz and Jazz."
)
ONE_TOKEN, SHORT, OVER_32 = "5", "Paris is in France.", "xyzzy quux 0123456789 bgjv " * 2
ANSWERS = [ONE_TOKEN, SHORT, OVER_32]
# Prompt, ids of the completion, whether the last one is end-of-sequence, answer. No prompt with its
# completion is a third longer than another, so three rows fill a batch, whichever three they are.
SHAPES = [
    (0, 3, False, 0), (4, 1, False, 1), (0, 2, True, 0), (0, 4, True, 2),
    (0, 5, False, 1), (0, 6, True, 1), (1, 22, False, 0), (1, 23, True, 1),
    (1, 25, True, 2), (2, 2, True, 1), (2, 3, False, 0), (2, 5, True, 2),
    (2, 6, False, 2), (3, 8, True, 1), (3, 9, False, 2), (3, 10, True, 0),
]  # fmt: skip
WRITTEN = [
    Row(PROMPTS[0], SHORT, " Paris"),
    Row(PROMPTS[0], OVER_32, "x"),
    Row(PROMPTS[1], ONE_TOKEN, "The capital of France is Paris."),
    Row(PROMPTS[1], SHORT, " 5"),
    Row(PROMPTS[2], SHORT, "An apple. \n"),
    Row(PROMPTS[2], ONE_TOKEN, "5"),
    Row(PROMPTS[3], OVER_32, "\u00e9 \u6f22 \U0001f642"),  # many ids for few characters
    Row(PROMPTS[4], ONE_TOKEN, " fruit."),
]

NATS: list[dict[str, Any]] = [
    {"type": "inverse_loss"},
    {"type": "inverse_loss", "c_max": 2.0},
    {"type": "self_certainty"},
    {"type": "self_certainty", "c_max": 3.0},
    {"type": "supervised", "formula": "coverage_ce"},
    {"type": "supervised", "formula": "coverage_ce", "c_max": 9.0, "connector": " => "},
    {"type": "supervised", "formula": "coverage_ce", "alignment": "positional", "c_max": 9.0},
]
SHARES: list[dict[str, Any]] = [
    {"type": "supervised"},
    {"type": "supervised", "connector": ""},
    {"type": "supervised", "alignment": "positional"},
    {"type": "supervised", "formula": "coverage_information"},
    {"type": "answer_likelihood"},
    {"type": "answer_likelihood", "formula": "mean_prob"},
    {"type": "answer_likelihood", "formula": "mean_logprob"},
    {"type": "answer_likelihood", "formula": "mean_logprob", "c_max": 4.0, "connector": " is "},
    {"type": "answer_likelihood", "baseline": True},
    {"type": "answer_likelihood", "formula": "mean_prob", "baseline": True},
    {"type": "answer_likelihood", "formula": "mean_logprob", "baseline": True},
]
# One of each reward and alignment, where not every option is needed.
EACH: list[dict[str, Any]] = [
    {"type": "inverse_loss"},
    {"type": "self_certainty"},
    {"type": "supervised"},
    {"type": "supervised", "formula": "coverage_ce", "alignment": "positional", "c_max": 9.0},
    {"type": "supervised", "formula": "coverage_information"},
    {"type": "answer_likelihood", "baseline": True},
    {"type": "answer_likelihood", "formula": "mean_logprob"},
]
TEXTS: list[dict[str, Any]] = [
    {"type": "token_f1"},
    {"type": "chrf"},
    {"type": "chrf", "word_order": 1},
    {"type": "chrf", "word_order": 2},
    {"type": "exact_match"},
    {"type": "length_limit"},
    {"type": "length_limit", "answer_ratio": 1.5, "slack": 0, "buffer": 3},
    {"type": "length_limit", "max_tokens": 4, "buffer": 5},
    {"type": "repetition"},
    {"type": "repetition", "n": 1},
    {"type": "regex", "pattern": "[0-9]|^The"},
    {"type": "regex", "pattern": "paris|Paris", "match": "fullmatch"},
    {"type": "majority_vote"},
    {"type": "majority_vote", "extract": r"-?\d+"},
    {"type": "majority_vote", "extract": r"is (\w+)|\w+"},
]
SAID = [
    "Paris", "paris.", " \u201cPARIS!\u201d", "`Paris`", "\uff30\uff41ris", "Par is", "_Paris_",
    "Paris\n", "The capital of France is Paris.", "It is Madrid, not Paris", "Paris " * 6,
    "-5", "(-5)", "--5", "5-", "- 5", "\u22125", "\uff0d5", "5", "5%", "$5", "answer: 5 or -5",
    "\u2026", "?!", "a", "A b", "x\u00b2 is x2", "\ufb01sh\u2019s fish's", "\u00bfQu\u00e9?",
    "\u6f22\u5b57\u3002", "\U0001f642 \U0001f642", "well-known  (text)", "Na na NA na",
    "the the cat sat on the mat, the cat sat", "\tThe\u00a0answer is\u2003Paris",
]  # fmt: skip
TRUE = ["Paris", "-5", "The cat sat on the mat.", "\u00bfQu\u00e9? It's \u201cfish\u201d \u6f22"]


class Pair(NamedTuple):
    """A model as the program runs it, and the reference of the same weights."""

    backend: TransformersBackend
    reference: Reference

    @property
    def eos(self) -> int:
        """The id that ends a completion."""
        return int(self.backend.prompt_tokenizer.tokenizer.eos_token_id)

    def sampled(self) -> list[Row]:
        """16 rows as a trainer has them: ids, with and without end-of-sequence at the end."""
        story = self.reference.ids(STORY)
        rows = []
        for start, (prompt, length, ended, answer) in enumerate(SHAPES):
            ids = story[start : start + length]
            if ended:
                ids[-1] = self.eos
            rows.append(Row(PROMPTS[prompt], ANSWERS[answer], ids=tuple(ids)))
        return rows

    def spelled(self, row: Row) -> list[int]:
        """Prompt, completion, connector and answer as one list of ids."""
        r = self.reference.read(row)
        return [*r.prompt, *r.content, *self.reference.ids(CONNECTOR), *r.answer]


def load(folder: Path, dtype: str = "float32") -> Pair:
    """The model in ``folder``, without an adapter."""
    backend = TransformersBackend.load(folder, LoadSettings(dtype=dtype))
    return Pair(backend, Reference(backend.prompt_tokenizer.tokenizer, backend.model))


@pytest.fixture(scope="module")
def taught(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each family, after 20 steps on the rows: untaught, all probabilities are next to 0."""
    fresh = load(tiny_folder)
    model, tokenizer = fresh.backend.model.cpu(), fresh.backend.prompt_tokenizer.tokenizer
    texts = [torch.tensor(fresh.spelled(row)) for row in fresh.sampled()]
    ids = pad_sequence(texts, batch_first=True, padding_value=tokenizer.pad_token_id)
    labels = pad_sequence(texts, batch_first=True, padding_value=-100)
    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    folder: Path = tmp_path_factory.mktemp("taught")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pair(taught: Path) -> Pair:
    """Each family in float32."""
    return load(taught)


@pytest.fixture(scope="module")
def adapted(taught: Path) -> Pair:
    """Each family with an adapter that changes what it says; the reference adds B A by hand."""
    backend, _ = load(taught)
    base = copy.deepcopy(backend.model)
    backend.add_adapter(AdapterSettings(4, 8, 0.5, ("q_proj", "v_proj", "down_proj"), seed=0))
    with torch.no_grad():
        for label, parameter in backend.model.named_parameters():
            if "lora_B" in label:
                parameter.normal_(std=0.2)
    backend.model.train()  # as in training: dropout would show
    policy = with_adapter(base, backend.model, scaling=8 / 4)
    return Pair(backend, Reference(backend.prompt_tokenizer.tokenizer, policy, base))


@pytest.fixture(scope="module")
def in_bfloat16(taught: Path) -> Pair:
    """Each family in bfloat16; the reference has the rounded weights, in float64."""
    pair = load(taught, "bfloat16")
    assert {p.dtype for p in pair.backend.model.parameters()} == {torch.bfloat16}
    return pair


def created(
    backend: TransformersBackend, config: Sequence[dict[str, Any]], **settings: Any
) -> RewardFunction:
    """The public reward function for ``config``."""
    settings = {"max_tokens_per_batch": 10**6, **settings}
    return create_reward_function(
        backend.model, backend.prompt_tokenizer.tokenizer, config=config, **settings
    )


def values(
    backend: TransformersBackend, rows: Sequence[Row], options: dict[str, Any], **settings: Any
) -> list[float]:
    """What the public reward function says of rows, all of which have ids, or none has."""
    found = created(backend, [options], **settings)(**columns(rows))
    assert None not in found
    return [float(value) for value in found if value is not None]


def columns(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows in the form in which TRL calls a reward function."""
    ids = [row.ids for row in rows if row.ids is not None]
    return {
        "prompts": [row.prompt for row in rows],
        "completions": [row.text for row in rows],
        "completion_ids": ids or None,
        "answer": [row.answer for row in rows],
    }


def never_shared(*_: Any) -> bool:
    """In place of `RowPaths.shares`: a row of its own for every sequence."""
    return False


def close(expected: Sequence[float], tolerance: float = TOLERANCE) -> Any:
    """Equal within ``tolerance``, whatever the size of the value."""
    return pytest.approx(list(expected), abs=tolerance, rel=0)


@contextmanager
def passes(model: Any) -> Iterator[list[int]]:
    """Rows of each batch that goes through ``model`` meanwhile."""
    rows: list[int] = []

    def note(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        rows.append(len(kwargs["input_ids"]))

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


def name(options: dict[str, Any]) -> str:
    """A test's name that can be typed."""
    return "-".join(str(value).strip() for value in options.values())


def test_every_reward_has_a_reference_and_a_case(pair: Pair) -> None:
    without_a_formula = {"random", "function"}
    assert set(REWARDS) - without_a_formula == pair.reference.rewards
    assert {case["type"] for case in NATS + SHARES + TEXTS} == pair.reference.rewards


# -- rewards that ask the model -------------------------------------------------------------------


def test_the_rows_are_what_the_tests_need(pair: Pair) -> None:
    rows = [pair.reference.read(row) for row in pair.sampled()]
    lengths = {len(r.answer) for r in rows}
    assert min(lengths) == 1
    assert max(lengths) > 32
    assert {r.completion[-1] == pair.eos for r in rows} == {True, False}
    assert {len(r.content) < len(r.answer) for r in rows} == {True, False}


@pytest.mark.parametrize("options", NATS + SHARES, ids=name)
def test_sampled_completions(
    pair: Pair, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pair.sampled()
    expected = pair.reference.values(rows, **options)
    assert len({round(value, 3) for value in expected}) > 4, "all alike would prove little"
    three = 3 * max(len(pair.spelled(row)) for row in rows)
    for side, most in (("packed", 10**6), ("right", 1), ("left", three), ("right", 10**6)):
        if side != "packed":
            monkeypatch.setattr(pair.backend.prompt_tokenizer.tokenizer, "padding_side", side)
            monkeypatch.setattr(RowPaths, "shares", never_shared)
        found = values(pair.backend, rows, options, max_tokens_per_batch=most)
        assert found == close(expected), (side, most)


@pytest.mark.parametrize("options", EACH, ids=name)
def test_written_completions(pair: Pair, options: dict[str, Any]) -> None:
    expected = pair.reference.values(WRITTEN, **options)
    assert values(pair.backend, WRITTEN, options) == close(expected)


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 16), (3, [3, 3, 3, 3, 3, 1]), (16, [16])])
def test_batches_really_hold_1_and_3_and_16_rows(
    pair: Pair, most: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowPaths, "shares", never_shared)
    rows, options = pair.sampled(), NATS[0]
    longest = max(len(r.prompt + r.completion) - 1 for r in map(pair.reference.read, rows))
    with passes(pair.backend.model) as batches:
        found = values(pair.backend, rows, options, max_tokens_per_batch=most * longest)
    assert batches == sizes
    assert found == close(pair.reference.values(rows, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"type": "inverse_loss"},
        {"type": "inverse_loss", "truncated": "score"},
        {"type": "inverse_loss", "truncated": "score", "gate": ("ended",)},
        {"type": "inverse_loss", "gate": (), "c_max": 2.0},
        {"type": "self_certainty"},
        {"type": "supervised"},
        {"type": "supervised", "formula": "coverage_ce", "c_max": 3.0},
        {"type": "answer_likelihood", "baseline": True},
        {"type": "length_limit"},
        {"type": "repetition", "n": 1},
    ],
    ids=name,
)
def test_empty_cut_and_looping_completions(pair: Pair, options: dict[str, Any]) -> None:
    """The limit of 9 ids cuts some rows; others end in time, at the limit itself or are empty."""
    loop = tuple(pair.reference.ids(" Paris is" * 8))
    blank = tuple(pair.reference.ids("  \n"))
    end = (pair.eos,)
    ends = [(), end, blank, blank + end, loop[:9], loop[:8] + end, loop + end]
    rows = [Row(PROMPTS[0], SHORT, ids=ids) for ids in ends] + pair.sampled()[::3]
    for limit in (None, 9):
        expected = pair.reference.values(rows, limit=limit, **options)
        found = values(pair.backend, rows, options, max_completion_length=limit)
        assert found == close(expected), limit


@pytest.mark.parametrize("options", EACH, ids=name)
def test_policy_and_reference_of_an_adapter(adapted: Pair, options: dict[str, Any]) -> None:
    rows, expected = adapted.sampled()[::2], {}
    for scored_by in get_args(Scorer):
        asked: dict[str, Any] = {**options, "scored_by": scored_by}
        expected[scored_by] = adapted.reference.values(rows, **asked)
        assert values(adapted.backend, rows, asked) == close(expected[scored_by]), scored_by
    assert expected["policy"] != close(expected["reference"], 100 * TOLERANCE)
    assert adapted.backend.model.training


@pytest.mark.parametrize("scored_by", get_args(Scorer))
@pytest.mark.parametrize("measure", get_args(Measure))
def test_measures(adapted: Pair, measure: Measure, scored_by: Scorer) -> None:
    read = [adapted.reference.read(row) for row in adapted.sampled()]
    by_hand = {
        "logprob": adapted.reference.logprobs,
        "self_certainty": adapted.reference.certainties,
    }[measure]
    found = adapted.backend.score(
        [ScoreRequest.of(tuple(r.prompt), tuple(r.completion), scored_by, measure) for r in read]
    )
    for r, numbers in zip(read, found, strict=True):
        assert list(numbers) == close(by_hand(r.prompt, r.completion, scored_by))


@pytest.mark.parametrize(
    ("scored_by", "asked", "passed"), [("reference", 3, 2), ("policy", 4, 2)], ids=str
)
def test_several_rewards_share_rows(
    adapted: Pair, scored_by: Scorer, asked: int, passed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each completion its own numbers ride in the row of the answer behind it."""
    rows = adapted.sampled()
    config: list[dict[str, Any]] = [
        {"type": "inverse_loss", "weight": 0.5},
        {"type": "supervised", "weight": 2.0},
        {"type": "self_certainty", "weight": -0.25},
        {"type": "answer_likelihood", "weight": 1.0, "scored_by": scored_by},
    ]
    reward = created(adapted.backend, config)
    requests: list[ScoreRequest] = []
    score = reward.backend.score

    def noted(wanted: Sequence[ScoreRequest], on_progress: Any = None) -> Any:
        requests.extend(wanted)
        return score(wanted, on_progress)

    monkeypatch.setattr(reward.backend, "score", noted)
    monkeypatch.setattr(RowPaths, "shares", never_shared)
    with passes(adapted.backend.model) as batches:
        totals = reward(**columns(rows))
    assert len(requests) == asked * len(rows)
    assert sum(batches) == passed * len(rows)
    encode = reward.backend.prompt_tokenizer.encode_row
    reward_results = reward.judge(
        [
            reward.sample(encode(DataRow(row.prompt, {"answer": row.answer}, "")), row.ids or ())
            for row in rows
        ]
    )
    sums = [0.0] * len(rows)
    for options in config:
        alone = {key: value for key, value in options.items() if key != "weight"}
        expected = adapted.reference.values(rows, **alone)
        parts = [reward_result.rewards[options["type"]] for reward_result in reward_results]
        assert parts == close(expected)
        assert parts == close(values(adapted.backend, rows, alone), 1e-5)
        sums = [s + options["weight"] * v for s, v in zip(sums, expected, strict=True)]
    assert totals == close(sums)


@pytest.mark.parametrize("options", NATS + SHARES, ids=name)
def test_bfloat16(in_bfloat16: Pair, options: dict[str, Any]) -> None:
    rows = in_bfloat16.sampled()[::2]
    expected = in_bfloat16.reference.values(rows, **options)
    found = values(in_bfloat16.backend, rows, options)
    assert found == close(expected, BF16_NATS if options in NATS else BF16_SHARE)


# -- rewards that ask the text alone --------------------------------------------------------------


@pytest.mark.parametrize("options", TEXTS, ids=name)
def test_texts(pair: Pair, options: dict[str, Any]) -> None:
    """Every text against every answer, which is its prompt, too, and so makes the groups.

    The texts come as strings, then as sampled ids, of which the limit cuts some.
    """
    rows = [Row(answer, answer, text) for answer in TRUE for text in SAID]
    expected = pair.reference.values(rows, **options)
    assert len(set(expected)) > 1
    assert values(pair.backend, rows, options) == close(expected)
    sampled = [
        row._replace(ids=(*pair.reference.ids(row.text), *[pair.eos] * (i % 3)))
        for i, row in enumerate(rows[::2])
    ]
    expected = pair.reference.values(sampled, limit=5, **options)
    assert values(pair.backend, sampled, options, max_completion_length=5) == close(expected)


GROUPS = [
    ["Paris", "paris.", "Madrid", "(Paris)", "Rome"],
    ["5", "6", "5.", "6!", "7"],  # two share first place
    ["?!", "...", "", " "],  # nobody says anything
    ["is 5 or 6", "is 6", "6", "5"],
    ["alone"],
]


@pytest.mark.parametrize("extract", [None, r"\d", r"is (\d)|\d"])
def test_majorities(pair: Pair, extract: str | None) -> None:
    """Groups are told apart by their prompts, also where their rows are mixed."""
    rows = [
        Row(prompt, text=texts[i])
        for i in range(max(map(len, GROUPS)))
        for prompt, texts in zip(PROMPTS, GROUPS, strict=True)
        if i < len(texts)
    ]
    options: dict[str, Any] = {"type": "majority_vote", "extract": extract}
    expected = pair.reference.values(rows, **options)
    assert set(expected) == {0.0, 1.0}
    assert values(pair.backend, rows, options) == expected


# -- rewards without a formula --------------------------------------------------------------------


def characters(completions: Sequence[str], **_: Any) -> list[float]:
    """A user's own reward; see the next test."""
    return [float(len(completion)) for completion in completions]


def test_a_function_of_the_users_own(pair: Pair) -> None:
    rows = [row for row in WRITTEN if isinstance(row.prompt, str)]
    options = {"function": f"{__name__}:characters"}
    assert values(pair.backend, rows, options) == [len(row.text) for row in rows]


def test_chance(pair: Pair) -> None:
    rows = WRITTEN * 10
    drawn = values(pair.backend, rows, {"type": "random"})
    assert values(pair.backend, rows, {"type": "random"}) == drawn
    assert values(pair.backend, rows, {"type": "random", "seed": 1}) != drawn
    assert values(pair.backend, rows[:-1], {"type": "random"}) != drawn[:-1]
    assert len(set(drawn)) == len(rows), "equal completions have no equal reward"
    assert all(0 <= value < 1 for value in drawn)
    assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=0.1)

"""Evaluation numbers by hand, on answers the test makes up."""

import json
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.evaluation import (
    Answers,
    Measured,
    collect_answers,
    compare,
    length_limit,
    measure,
    not_measured,
    with_cut_share,
)
from remote_trainer.evaluation.cache import cached_answers
from remote_trainer.evaluation.matching import is_exact, is_right, rivals_by_kind
from remote_trainer.evaluation.metrics import interval
from remote_trainer.records import EncodedRow, Generation, Row, Thinking

RIVALS = {("paris",), ("rome",), ("new", "delhi"), ("delhi",), ("guinea",), ("5",)}


@pytest.mark.parametrize(
    ("completion", "reference", "right"),
    [
        ("The capital of France is Paris.", "Paris", True),
        ("PARIS!", "Paris", True),
        ("Parisian", "Paris", False),
        ("Paris or Rome", "Paris", False),
        ("I do not know", "Paris", False),
        ("", "Paris", False),
        ("It is New Delhi.", "New Delhi", True),
        ("New Delhi, not Delhi", "New Delhi", False),
        ("New Delhi", "Delhi", False),
        ("15", "5", False),
        ("-5", "5", False),
        ("= 5.", "5", True),
    ],
)
def test_right_means_the_reference_and_no_rival(
    completion: str, reference: str, right: bool
) -> None:
    assert is_right(completion, reference, RIVALS) is right


def test_exact_means_the_whole_text() -> None:
    assert is_exact("Paris.", "paris")
    assert not is_exact("It is Paris", "Paris")


def test_rivals_stay_within_their_kind() -> None:
    assert rivals_by_kind(["a", "a", "b", None], ["X", "Y z", "W", "V"]) == {
        "a": {("x",), ("y", "z")},
        "b": {("w",)},
    }


class Letters:
    """A prompt_tokenizer whose ids are characters."""

    def decode(self, ids: tuple[int, ...]) -> str:
        return "".join(map(chr, ids)).rstrip("\0")

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def without_eos(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(each for each in ids if each)

    def thinking(self, prompt_ids: tuple[int, ...], content_ids: tuple[int, ...]) -> Thinking:
        return Thinking()


def said(text: str) -> Generation:
    ids = (*map(ord, text), 0)
    return Generation(ids, (0.0,) * len(ids), (0.0,) * len(ids), True)


def row(answer: str | None, kind: str | None = "k") -> EncodedRow:
    return EncodedRow(Row("q", {"answer": answer, "kind": kind}, "f:1"), (1,), "q")


def test_metrics_by_hand() -> None:
    rows = [row("ab"), row("cd"), row(None, None)]
    answers = Answers(
        greedy=[said("ab"), said("the cd is it"), said("ab")],
        sampled=[[said("ab"), said("ab cd")], [said("cd"), said("cd!")], [said("x"), said("y")]],
        reference_logprobs=[-1.0, -3.0, None],
        max_new_tokens=16,
        general_logprob=-3.25,
    )
    rewards = [[0.5, 1.0], [None, 0.25], [None, None]]
    measured = measure(rows, answers, Letters(), "answer", rewards)  # type: ignore[arg-type]
    metrics = measured.metrics
    assert measured.per_row["accuracy_sampled"] == [0.5, 1.0, None]
    assert {k: v for k, v in metrics.items() if k not in ("ci95", "by_kind")} == {
        "rows": 3,
        "accuracy_greedy": 1.0,
        "accuracy_sampled": 0.75,
        "exact_match": 0.5,
        "answer_logprob": -2.0,
        "reward": 0.5,  # mean of 0.75 and 0.25
        "clipped_share": 0.0,
        "general_logprob": -3.25,
        "completion_tokens_mean": (3 + 6 + 3 + 4 + 2 + 2) / 6,
        "distinct_3": None,
        "duplicate_share": 2 / 3,  # the greedy "ab" to a row that asks for something else
    }
    assert metrics["by_kind"] == {
        "k": {"rows": 2, "accuracy_greedy": 1.0, "accuracy_sampled": 0.75}
    }


def cut(text: str) -> Generation:
    ids = tuple(map(ord, text))
    return Generation(ids, (0.0,) * len(ids), (0.0,) * len(ids), False)


@pytest.mark.parametrize(("ended", "told"), [(2, False), (1, True)])
def test_the_verdict_says_if_most_completions_were_cut(ended: int, told: bool) -> None:
    rows = [row("a"), row("b")]

    def measured(sampled: list[Generation]) -> Measured:
        pairs = [sampled[:2], sampled[2:]]
        answers = Answers([said("a")] * 2, pairs, [-1.0, -1.0], 16)
        return measure(rows, answers, Letters(), "answer", None)  # type: ignore[arg-type]

    before = measured([said("a")] * ended + [cut("a")] * (4 - ended))
    after = measured([said("a")] * 4)
    assert before.metrics["clipped_share"] == (4 - ended) / 4
    verdict = with_cut_share(compare(before.per_row, after.per_row), before, after)
    note = (
        "Of the sampled completions 75% before and 0% after were cut at the limit of 16 tokens, so "
        "answers may be missing: raise evaluation.max_completion_length."
    )
    assert verdict["text"].endswith(note) is told


def test_nothing_is_said_of_cut_completions_where_nothing_is_judged() -> None:
    answers = Answers([cut("x")] * 2, [[cut("x")]] * 2, [None, None], 16)
    side = measure([row(None)] * 2, answers, Letters(), "answer", None)  # type: ignore[arg-type]
    verdict = not_measured("Not measured.")
    assert with_cut_share(verdict, side, side) == verdict


def test_without_references_nothing_is_made_up() -> None:
    answers = Answers([said("x")] * 2, [[said("x")]] * 2, [None, None], 16)
    measured = measure([row(None)] * 2, answers, Letters(), "answer", None)  # type: ignore[arg-type]
    names = ("accuracy_greedy", "accuracy_sampled", "exact_match", "answer_logprob", "reward")
    assert [measured.metrics[name] for name in names] == [None] * 5
    assert compare(measured.per_row, measured.per_row)["word"] == "not measured"


def test_interval_covers_what_it_says() -> None:
    assert interval([1.0]) is None
    assert interval([1.0, 1.0, None]) == [1.0, 1.0]
    low, high = interval([0.0] * 50 + [1.0] * 50) or (0, 0)
    # The mean of 100 coins has standard error 0.05: 95 % lie within about 0.098.
    assert low == pytest.approx(0.402, abs=0.02)
    assert high == pytest.approx(0.598, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ([1.0] * 40 + [0.0] * 60, "better"),
        ([-1.0] * 40 + [0.0] * 60, "worse"),
        ([1.0, -1.0] * 30, "no measurable change"),
        ([0.0] * 30, "no measurable change"),
    ],
)
def test_verdict_follows_the_paired_interval(changes: list[float], word: str) -> None:
    before = {"accuracy_sampled": [1.0 if c < 0 else 0.0 for c in changes]}
    after = {
        "accuracy_sampled": [
            b + c for b, c in zip(before["accuracy_sampled"], changes, strict=True)
        ]
    }
    verdict = compare(before, after)  # type: ignore[arg-type]
    assert verdict["word"] == word
    assert verdict["change"] == pytest.approx(sum(changes) / len(changes))


def test_length_limit(llama: Any) -> None:
    rows = [row("Paris"), row("The capital of France")]
    longest = max(len(llama.prompt_tokenizer.encode(r.row.fields["answer"])) for r in rows)
    assert length_limit(rows, "answer", llama, None) == max(16, 4 * longest)
    assert length_limit([row("5")], "answer", llama, None) == 16
    assert length_limit(rows, "answer", llama, 7) == 7
    assert length_limit(rows, "answer", llama, 7, 100) == 7
    assert length_limit(rows, "answer", llama, None, 500) == 500
    assert length_limit(rows, "answer", llama, None, 5) == max(16, 4 * longest)
    assert length_limit([row(None)], "answer", llama, None, 65) == 65
    assert length_limit([row(None)], "answer", llama, None) == 64


def test_answers_of_a_model_are_kept_by_model_rows_and_settings(
    llama: Any, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path))
    rows = [
        EncodedRow(Row("q", {"answer": "Paris"}, "f:1"), (1, 20, 30), "q"),
        EncodedRow(Row("q", {}, "f:2"), (1, 40), "q"),
    ]
    calls: list[int] = []

    def ask() -> Answers:
        calls.append(1)
        return collect_answers(llama, rows, "answer", samples=2, max_new_tokens=4)

    first = cached_answers(llama_folder, rows, {"samples": 2}, ask)
    assert cached_answers(llama_folder, rows, {"samples": 2}, ask) == first
    assert len(calls) == 1
    cached_answers(llama_folder, rows, {"samples": 3}, ask)
    cached_answers(llama_folder, rows[:1], {"samples": 2}, ask)
    assert len(calls) == 3
    assert [len(draws) for draws in first.sampled] == [2, 2]
    assert first.reference_logprobs[1] is None
    ids = llama.prompt_tokenizer.encode("Paris")
    from remote_trainer.records import ScoreRequest

    logprobs = llama.score([ScoreRequest((1, 20, 30), ids, ids)])[0]
    assert first.reference_logprobs[0] == pytest.approx(sum(logprobs) / len(ids), abs=1e-6)


def test_answering_reports_how_many_answers_are_there(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [EncodedRow(Row("q", {}, f"f:{i}"), (1, 20, 30 + i), "q") for i in range(5)]
    # Room for two rows of 3 + 4 tokens at a time when each has one completion.
    monkeypatch.setattr(llama, "max_tokens_per_batch", 14)
    told: list[tuple[int, int]] = []

    def ask(**named: Any) -> Answers:
        return collect_answers(llama, rows, "answer", samples=2, max_new_tokens=4, **named)

    answers = ask(on_progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told[:3]] == [2, 4, 5]  # greedy ones first
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (15, 15)
    assert {total for _, total in told} == {15}
    assert answers == ask()


def test_the_verdict_says_why_there_is_none() -> None:
    def text(values: list[float | None], set_aside: int = 0) -> str:
        side = {"accuracy_sampled": values}
        return str(compare(side, side, set_aside)["text"])

    assert text([None, None]) == "Not measured: the held-out rows have no reference answers."
    assert text([None, 1.0]) == (
        "Not measured: only one held-out row has a reference, and a verdict needs two."
    )
    assert text([], 16) == (
        "Not measured: of 16 held-out rows with a reference none is left for the verdict, because "
        "all of them chose the adapter; hold out more rows (data.eval)."
    )
    assert "of 17 held-out rows with a reference only one is left" in text([1.0, None], 16)
    assert text([1.0, 0.0], 16).startswith("No measurable change: on 2 held-out rows")


def test_answers_of_another_engine_or_kernel_are_not_taken_for_these(
    llama: Any, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from remote_trainer import environment
    from remote_trainer.config import parse_config
    from remote_trainer.engines.transformers_backend import TransformersBackend
    from remote_trainer.pipeline import evaluate
    from remote_trainer.progress import SILENT

    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path))
    rows = [EncodedRow(Row("q", {"answer": "Paris"}, "f:1"), (1, 20, 30), "q")]
    asked: list[int] = []

    def collect(*_: Any) -> Answers:
        asked.append(1)
        return collect_answers(llama, rows, "answer", samples=1, max_new_tokens=2)

    monkeypatch.setattr(evaluate, "_collect", collect)
    there = {"engine": "transformers", "dtype": "float32", "in_4bit": False}
    installed = {"bitsandbytes": "0.50.2", "unsloth": "2026.10.7", "vllm": "0.30.0"}
    known = environment.version_of
    monkeypatch.setattr(environment, "version_of", lambda name: installed.get(name) or known(name))
    monkeypatch.setattr(TransformersBackend, "describe", lambda self: dict(there))

    def times_asked(**scoring: Any) -> int:
        text = {"data": {"train": "-"}, "reward": {"type": "token_f1"}, "scoring": scoring}
        config = parse_config(json.dumps(text), "c")
        evaluate.measure_before(llama, llama_folder, rows, config, SILENT)
        return len(asked)

    assert [times_asked(), times_asked()] == [1, 1]
    for number, (name, value) in enumerate(
        [("engine", "unsloth"), ("dtype", "bfloat16"), ("in_4bit", True)], start=2
    ):
        there[name] = value
        assert times_asked() == number
    for number, name in enumerate(installed, start=5):
        installed[name] += ".post1"
        assert times_asked() == number
    import torch

    torch.use_deterministic_algorithms(True)
    try:
        assert times_asked() == 8
    finally:
        torch.use_deterministic_algorithms(False)
    assert times_asked(max_tokens_per_batch=64) == 9
    assert times_asked() == 9

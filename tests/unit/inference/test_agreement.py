"""One limit for two ways to the same numbers, and one stream of seeds for both samplers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.eos_ids import ids_in
from remote_trainer.inference import agreement
from remote_trainer.inference.agreement import LIMITS, Limit, largest, limit_of, why_apart
from remote_trainer.inference.completion_seeds import completion_seeds
from remote_trainer.means import mean_of_known
from remote_trainer.records import LoadSettings, Sampling, ScoreRequest, TokenIds
from remote_trainer.report.tables import environment_rows

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("gap", "rounds", "apart"),
    [
        (0.0009, "float32", False),
        (0.0011, "float32", True),
        (0.29, "bfloat16", False),
        (0.31, "bfloat16", True),
        (0.69, "4-bit", False),
        (0.71, "4-bit", True),
        (0.31, "unsloth", True),
        (math.nan, "4-bit", True),
    ],
)
def test_limits(gap: float, rounds: str, apart: bool) -> None:
    assert (why_apart(gap, LIMITS[rounds]) is not None) is apart


@pytest.mark.parametrize(
    ("dtypes", "in_4bit", "rounds"),
    [
        ((torch.float32,), False, "float32"),
        ((torch.float32, torch.float32), True, "float32"),
        ((torch.bfloat16, torch.float32), False, "bfloat16"),
        ((torch.float32, torch.float16), False, "float16"),
        ((torch.float16, torch.bfloat16), False, "bfloat16"),
        ((torch.bfloat16,), True, "4-bit"),
    ],
)
def test_the_coarsest_decides(dtypes: Any, in_4bit: bool, rounds: str) -> None:
    assert limit_of(*dtypes, in_4bit=in_4bit) is LIMITS[rounds]


def largest_measured() -> dict[str, float]:
    """Case -> the largest gap of the pairs that a run compares, from the recorded table."""
    text = (ROOT / "benchmarks/results/logprob_gaps.md").read_text(encoding="utf-8")
    found: dict[str, float] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and cells[3][:1].isdigit() and "precision" not in cells[1]:
            found[cells[0]] = max(found.get(cells[0], 0.0), float(cells[3]))
    return found


def test_limits_are_far_enough_from_what_was_measured() -> None:
    measured = largest_measured()
    limits = {
        "float32": "float32",
        "4-bit, computes in float32": "float32",
        "bfloat16": "bfloat16",
        "float32, sampled in bfloat16": "bfloat16",
        "4-bit, computes in bfloat16": "4-bit",
    }
    assert measured.keys() == limits.keys()
    for case, rounds in limits.items():
        assert 2 * measured[case] <= LIMITS[rounds].nats * 1.05, case
    assert {name for name, limit in LIMITS.items() if "not measured" in limit.source} == {
        "float16",
        "unsloth",
    }


def test_a_way_that_is_dropped_is_in_the_log_the_environment_and_the_report(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(agreement, "LIMITS", {"float32": Limit(-1.0, "none agree")})
    backend = TransformersBackend.load(llama_folder, LoadSettings())
    (generation,) = backend.generate([(5, 6)], Sampling(2, temperature=0))
    backend.score([ScoreRequest.of((5, 6), generation.ids)])
    said = "log-probs differ by"
    assert sum(said in record.message for record in caplog.records) >= 2
    engine = backend.describe()
    assert said in engine["fast_path"]
    assert said in engine["ways"]["packed rows, scoring"]
    assert said in engine["ways"]["sampling in float32"]
    told = dict(environment_rows({"engine": engine}))
    assert said in told["engine: fast_path"]


def test_a_gap_that_is_no_number_is_the_largest() -> None:
    assert math.isnan(largest([0.1, math.nan, 0.2]))
    assert largest(gap for gap in (0.1, 0.3)) == 0.3


def test_seeds_are_those_that_were_always_drawn() -> None:
    prompts = [(1, 2), (3,), (1, 2)]
    wide = list(completion_seeds(prompts, 7, size=8, signed=True))
    narrow = list(completion_seeds(prompts, 7, size=4, signed=False))
    assert [seed % 2**32 for seed in wide] == narrow
    assert len(set(narrow)) == 3
    assert narrow[0] == 2643911472


def test_values_that_are_not_there() -> None:
    assert mean_of_known([None, 1.0, 2.0]) == 1.5
    assert mean_of_known(iter([None])) is None
    assert [ids_in(value) for value in (None, 3, [3, 4], (5,), True)] == [
        (),
        (3,),
        (3, 4),
        (5,),
        (),
    ]


def test_seeds_do_not_depend_on_how_prompts_are_split() -> None:
    prompts: list[TokenIds] = [(1,), (2,), (1,), (1,)]
    whole = list(completion_seeds(prompts, 7, size=8, signed=True))
    first = list(completion_seeds(prompts[:2], 7, size=8, signed=True))
    rest = list(completion_seeds(prompts[2:], 7, size=8, signed=True, earlier=prompts[:2]))
    assert [*first, *rest] == whole
    assert len(set(whole)) == 4

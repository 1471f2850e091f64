"""One limit for two ways to the same numbers, and one stream of seeds for both samplers."""

import math

import pytest

from remote_trainer.eos_ids import ids_in
from remote_trainer.inference import agreement
from remote_trainer.inference.agreement import DECODING_NATS, ROWS_NATS, largest, why_apart
from remote_trainer.inference.completion_seeds import completion_seeds
from remote_trainer.means import mean_of_known


@pytest.mark.parametrize(
    ("gap", "exact", "coarse", "apart"),
    [
        (0.0009, True, ROWS_NATS, False),
        (0.0011, True, DECODING_NATS, True),
        (0.09, False, ROWS_NATS, False),
        (0.2, False, ROWS_NATS, True),
        (0.2, False, DECODING_NATS, False),
        (0.31, False, DECODING_NATS, True),
        (math.nan, False, DECODING_NATS, True),
    ],
)
def test_limits(gap: float, exact: bool, coarse: float, apart: bool) -> None:
    assert (why_apart(gap, exact, coarse) is not None) is apart


def test_a_gap_that_is_no_number_is_the_largest() -> None:
    assert math.isnan(largest([0.1, math.nan, 0.2]))
    assert largest(gap for gap in (0.1, 0.3)) == 0.3
    assert agreement.EXACT_NATS < ROWS_NATS < DECODING_NATS


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

"""benchmarks/random_kills.py: when it kills, and what counts as the same run."""

import random
from unittest import mock

from random_kills import Moment, random_moments, without_times


def test_moments_are_times_of_the_undisturbed_run() -> None:
    """Updates end after 10, 12 and 14 s, the run after 20; the last moment is before 19 s."""
    drawn = iter([13.0, 4.0, 18.0, 12.0])
    with mock.patch.object(random.Random, "uniform", side_effect=lambda a, b: next(drawn)) as draw:
        found = random_moments([10.0, 12.0, 14.0, 20.0], 4, random.Random(0))
    assert draw.call_args_list == [mock.call(0, 19.0)] * 4
    assert found == [Moment(0, 4.0), Moment(2, 0.0), Moment(2, 1.0), Moment(3, 4.0)]


def test_the_same_seed_gives_the_same_moments() -> None:
    times = [10.0, 12.0, 20.0]
    one, other, another = (random_moments(times, 6, random.Random(seed)) for seed in (1, 1, 2))
    assert one == other != another


def test_times_and_memory_do_not_count() -> None:
    line = {"step": 1, "seconds_step": 2.0, "peak_memory_mb": 3.0, "guard": [{"seconds": 1}]}
    assert without_times([line]) == [{"step": 1, "guard": [{}]}]

"""How the KL grows with AdamW's movement: against sums by hand, and AdamW itself."""

import math

import pytest
import torch

from remote_trainer.forecast.growth import FIRST_MOMENT, Growth, Movement, fit, movement


def test_the_first_updates_by_hand() -> None:
    """The first gradient moves by 1 and then by 0.09 / 0.19, the second one by 0.1 / 0.19."""
    assert movement([]) == Movement(0.0, 0.0)
    first = movement([1.0])
    assert (first.steady, first.noise) == pytest.approx((1.0, 1.0))
    second = movement([1.0, 1.0])
    by_hand = (1 + 0.09 / 0.19) ** 2 + (0.10 / 0.19) ** 2
    assert (second.steady, second.noise) == pytest.approx((4.0, by_hand))
    half = movement([0.5, 0.5])
    assert (half.steady, half.noise) == pytest.approx((1.0, by_hand / 4))


def test_noise_is_the_sum_over_all_gradients() -> None:
    """The recursion against the double sum: each gradient lives on in the first moment."""
    rates = [0.0, 0.5, 1.0, 1.0, 0.3, 0.2, 1.0]

    def reached(first: int) -> float:
        return sum(
            rate * (1 - FIRST_MOMENT) * FIRST_MOMENT ** (step - first) / (1 - FIRST_MOMENT**step)
            for step, rate in enumerate(rates, start=1)
            if step >= first
        )

    by_sum = sum(reached(first) ** 2 for first in range(1, len(rates) + 1))
    assert movement(rates).noise == pytest.approx(by_sum)


@pytest.mark.parametrize(("share", "tolerance"), [(1.0, 1e-3), (0.0, 0.15)])
def test_adamw_moves_as_far(share: float, tolerance: float) -> None:
    """20,000 weights under torch's AdamW: the same gradient each time, or noise each time."""
    draw = torch.Generator().manual_seed(0)
    weights = torch.nn.Parameter(torch.zeros(20_000))
    optimizer = torch.optim.AdamW([weights], lr=1e-3, weight_decay=0.0)
    for _ in range(10):
        noise = torch.randn(len(weights), generator=draw)
        weights.grad = share * torch.ones_like(noise) + (1 - share) * noise
        optimizer.step()
    moved = float((weights.detach() ** 2).mean()) / 1e-6
    assert movement([1.0] * 10).squared(share) == pytest.approx(moved, rel=tolerance)


def test_a_growth_is_found_again() -> None:
    """Values that follow the rule exactly, with the usual share: 2e-4 after the first update."""
    by_hand = 0.5 * 4.0 + 0.5 * ((1 + 0.09 / 0.19) ** 2 + (0.10 / 0.19) ** 2)
    found = fit([2e-4, 2e-4 * by_hand])
    assert (found.scale, found.steady) == pytest.approx((2e-4, 0.5))
    # 10 equal gradients move 100 as far; 10 of noise 15.0 (docs/forecast.md).
    assert found.after(movement([1.0] * 10)) == pytest.approx(2e-4 * (50 + 7.5), rel=0.01)


def test_steeper_growth_means_a_steadier_gradient() -> None:
    steep, flat = fit([1e-4, 4e-4, 9e-4]), fit([1e-4, 2e-4, 3e-4])
    assert steep.steady > 0.5 > flat.steady
    assert fit([1e-4 * n * n for n in (1, 2, 3)]).after(Movement(100, 15)) > 5.5e-3


def test_the_scale_is_that_of_the_kl() -> None:
    """Twice the learning rate is four times the KL."""
    slow, fast = fit([1e-4, 3e-4]), fit([4e-4, 12e-4])
    assert fast.scale == pytest.approx(4 * slow.scale)
    assert fast.steady == slow.steady


@pytest.mark.parametrize("measured", [[], [0.0], [-1e-9, 0.0]])
def test_no_measured_change_means_none(measured: list[float]) -> None:
    assert fit(measured) == Growth(0.0, 0.5)
    assert fit(measured).after(movement([1.0] * 1000)) == 0.0


def test_one_value_is_enough() -> None:
    found = fit([3e-4])
    assert found.steady == 0.5
    assert math.isclose(found.scale, 3e-4)

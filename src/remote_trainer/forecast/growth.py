"""How the KL divergence from the start grows with the updates of AdamW.

A new adapter begins with B = 0 and AdamW moves every weight by about the learning rate, so for
small changes the KL divergence is c x the squared movement of B. Of each gradient a share is the
same in every update, the rest is noise of the prompts and samples of that update. With g = sqrt(s)
+ sqrt(1 - s) x noise, the expected squared movement after n updates is s x (sum of the rates)^2 +
(1 - s) x W(n), where W is that of a random walk smoothed by AdamW's first moment.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FIRST_MOMENT = 0.9  # adam_beta1 of transformers' TrainingArguments
USUAL_STEADY = 0.5
"""Share of the gradient that stays the same, in the runs of docs/learning.md."""
SPREAD_OF_STEADY = 0.3
"""How far that share lies from `USUAL_STEADY` in single runs."""
SPREAD_OF_KL = 0.2
"""How far the logarithm of one measured KL lies from the rule."""
GRID = 100


@dataclass(frozen=True)
class Movement:
    """Expected squared movement in units of the squared learning rate, by kind of gradient."""

    steady: float
    noise: float

    def squared(self, share: float) -> float:
        """For gradients of which ``share`` (0 to 1) is the same in every update."""
        return share * self.steady + (1.0 - share) * self.noise


def movement(rates: Iterable[float]) -> Movement:
    """After updates with these learning rates (1: the full one).

    ``m`` is the variance of AdamW's first moment under noise of variance 1, ``x`` that of the
    movement, and ``mx`` their covariance.
    """
    total = m = mx = x = 0.0
    for count, rate in enumerate(rates, start=1):
        total += rate
        m = FIRST_MOMENT**2 * m + (1.0 - FIRST_MOMENT) ** 2
        mx *= FIRST_MOMENT
        step = rate / (1.0 - FIRST_MOMENT**count)
        x += 2.0 * step * mx + step**2 * m
        mx += step * m
    return Movement(total**2, x)


@dataclass(frozen=True)
class Growth:
    """KL in nats per token = ``scale`` x the squared movement."""

    scale: float
    steady: float
    """Share of the gradient that is the same in every update, 0 to 1."""

    def after(self, moved: Movement) -> float:
        """KL in nats per token."""
        return self.scale * moved.squared(self.steady)


def fit(measured: Sequence[float]) -> Growth:
    """The growth behind the KL after 1, 2, ... updates at the full learning rate.

    Three values say little of the steady share, so it is drawn towards `USUAL_STEADY`. Values of
    0 or below are rounding errors and left out; without any other the scale is 0.
    """
    points = [
        (movement([1.0] * updates), math.log(kl))
        for updates, kl in enumerate(measured, start=1)
        if kl > 0.0
    ]
    if not points:
        return Growth(0.0, USUAL_STEADY)
    _, scale, steady = min(_misfit(points, i / GRID) for i in range(GRID + 1))
    return Growth(scale, steady)


def _misfit(points: Sequence[tuple[Movement, float]], steady: float) -> tuple[float, float, float]:
    """(squared distance to what was measured and to the usual share, best scale, share)."""
    gaps = [log_kl - math.log(moved.squared(steady)) for moved, log_kl in points]
    middle = sum(gaps) / len(gaps)
    distance = sum((gap - middle) ** 2 for gap in gaps) / SPREAD_OF_KL**2
    distance += ((steady - USUAL_STEADY) / SPREAD_OF_STEADY) ** 2
    return distance, math.exp(middle), steady

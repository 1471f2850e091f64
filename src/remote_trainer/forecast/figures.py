"""What a probe measured and what follows from it. None: it could not be measured."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class RightAnswers:
    """How often the model before training is right."""

    rows: int
    """Rows with a reference answer."""
    right: float
    """Share of right completions, 0 to 1."""
    sometimes_right: float
    """Share of rows with at least one right completion."""
    never_right: float
    """The other rows."""
    always_right: float
    """Share of rows with right completions only."""
    taken_from: str
    """The key of the file of the rows: data.train or data.eval."""


@dataclass(frozen=True)
class Rewards:
    """The combined reward within the groups of one prompt."""

    mean: float | None
    std_in_group: float | None
    """Mean standard deviation, as the group filter computes it."""
    groups_without_spread: float
    """Share of groups at or under training.group_filter.min_std, which train nothing."""


@dataclass(frozen=True)
class Completions:
    tokens_mean: float
    cut_share: float
    """Share that reached training.max_completion_length."""


@dataclass(frozen=True)
class Cost:
    """Time in seconds on this machine; tokens of prompts and completions."""

    seconds_per_update: float
    tokens_per_update: float
    seconds_updates: float
    """All updates, without evaluations."""
    seconds_evaluation: float | None
    """Evaluations before and after, and the probes of the guard; None without held-out rows."""
    seconds: float
    tokens: float
    """All updates."""
    peak_memory_mb: float
    """Of the GPU if there is one, otherwise of the process."""


@dataclass(frozen=True)
class Divergence:
    """KL divergence from the model at the start, in nats per token."""

    measured: tuple[float, ...]
    """After each probed update, at the full learning rate."""
    steady: float
    """Share of the gradient that is the same in every update, as fitted."""
    after_10: float
    """Predicted, at the full learning rate."""
    updates: int
    after_all: float
    """Predicted for the whole run with its schedule, before the KL term limits it."""


@dataclass(frozen=True)
class Probe:
    """Everything that needs the model."""

    rows: int
    samples: int
    """Per row."""
    right_answers: RightAnswers | None
    rewards: Rewards
    completions: Completions
    cost: Cost
    divergence: Divergence
    missing: tuple[str, ...]
    """What could not be measured, and why."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

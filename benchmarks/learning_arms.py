"""The arms of the learning study: what differs between them, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Arm:
    """One way to train; ``reward`` None: supervised fine-tuning on the same rows by TRL."""

    reward: Any
    training: Mapping[str, Any] = field(default_factory=dict)
    main: bool = False
    """Three seeds instead of one."""


def likelihood(**options: Any) -> dict[str, Any]:
    """answer_likelihood with these options."""
    return {"type": "answer_likelihood", **options}


def supervised(**options: Any) -> dict[str, Any]:
    """supervised with these options."""
    return {"type": "supervised", **options}


def inverse_loss(**options: Any) -> dict[str, Any]:
    """inverse_loss with these options."""
    return {"type": "inverse_loss", **options}


LENGTH = {"type": "length_limit", "weight": 0.5}

ARMS: Mapping[str, Arm] = {
    "answer_likelihood": Arm(likelihood(formula="mean_prob"), main=True),
    "inverse_loss": Arm(inverse_loss(), main=True),
    "likelihood_baseline": Arm(likelihood(formula="mean_prob", baseline=True), main=True),
    "token_f1": Arm({"type": "token_f1"}),
    "supervised": Arm(supervised(), main=True),
    "supervised_original": Arm(supervised(formula="original")),
    "inverse_loss_hot": Arm(inverse_loss(), {"beta": 0.0, "learning_rate": 1.0e-3}),
    "random": Arm({"type": "random"}, main=True),
    "sft": Arm(None, main=True),
    "inverse_loss_reference": Arm(inverse_loss(scored_by="reference")),
    "supervised_information": Arm(supervised(formula="coverage_information")),
    "self_certainty": Arm({"type": "self_certainty"}),
    "likelihood_policy": Arm(likelihood(formula="mean_prob", scored_by="policy")),
    "likelihood_logprob": Arm(likelihood(formula="mean_logprob")),
    "likelihood_and_length": Arm([likelihood(formula="mean_prob"), LENGTH]),
    "inverse_loss_fast": Arm(inverse_loss(), {"learning_rate": 3.0e-4}),
    "likelihood_fast": Arm(likelihood(formula="mean_prob"), {"learning_rate": 3.0e-4}),
    "inverse_loss_original": Arm(inverse_loss(formula="original")),
    "supervised_ce": Arm(supervised(formula="coverage_ce")),
    "supervised_positional": Arm(supervised(alignment="positional")),
    "supervised_and_length": Arm([supervised(), LENGTH]),
}


def schedule() -> list[tuple[str, int]]:
    """(arm, seed): every arm once, then the main arms again."""
    first = [(name, SEEDS[0]) for name in ARMS]
    return first + [(name, seed) for seed in SEEDS[1:] for name, arm in ARMS.items() if arm.main]

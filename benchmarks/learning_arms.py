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
    train: str | None = None
    """A file of data/ with other prompts; None: the rows left of train_supervised.jsonl."""
    main: bool = False
    """Three seeds instead of one."""


# The options of today that are left out here did not exist when the study was made, or had these
# values.
CONNECTOR = "\nAnswer: "


def likelihood(**options: Any) -> dict[str, Any]:
    """answer_likelihood with these options."""
    return {"type": "answer_likelihood", "connector": CONNECTOR, **options}


def supervised(**options: Any) -> dict[str, Any]:
    """supervised with these options."""
    off = {"fluency_weight": 0, "length_weight": 0}
    return {"type": "supervised", "connector": CONNECTOR, "scored_by": "policy", **off, **options}


def inverse_loss(**options: Any) -> dict[str, Any]:
    """inverse_loss with these options."""
    return {"type": "inverse_loss", "scored_by": "policy", **options}


LENGTH = {"type": "length_limit", "weight": 0.5}
LONG = {"max_completion_length": 64}
FAST, SLOW = {"learning_rate": 3.0e-4}, {"learning_rate": 3.0e-5}
SPOKEN = "\nThe correct answer is: "
"""Tells right completions from wrong ones better than the default connector; see reward_auc.py."""

# What configs/supervised.yaml came of.
STATEMENT = {"type": "regex", "pattern": "[^?]*", "match": "fullmatch", "weight": 0.5}
"""To ask the question back scores better than a wrong answer does."""
BOTH_AND_LENGTH = [
    supervised(connector=SPOKEN, scored_by="reference"),
    inverse_loss(scored_by="reference", weight=0.1),
    LENGTH,
]

ARMS: Mapping[str, Arm] = {
    "answer_likelihood": Arm(likelihood(formula="mean_prob"), main=True),
    "likelihood_spoken": Arm(likelihood(formula="mean_prob", connector=SPOKEN), main=True),
    "inverse_loss": Arm(inverse_loss(), main=True),
    "inverse_loss_reference": Arm(inverse_loss(scored_by="reference"), main=True),
    "random": Arm({"type": "random"}, main=True),
    "sft": Arm(None, main=True),
    "supervised": Arm(supervised()),
    "supervised_spoken": Arm(supervised(connector=SPOKEN)),
    "supervised_original": Arm(supervised(formula="original")),
    "supervised_information": Arm(supervised(formula="coverage_information")),
    "supervised_ce": Arm(supervised(formula="coverage_ce")),
    "supervised_positional": Arm(supervised(alignment="positional")),
    "likelihood_baseline": Arm(likelihood(formula="mean_prob", baseline=True)),
    "likelihood_policy": Arm(likelihood(formula="mean_prob", connector=SPOKEN, scored_by="policy")),
    "likelihood_logprob": Arm(likelihood(formula="mean_logprob", connector=SPOKEN)),
    "likelihood_fast": Arm(likelihood(formula="mean_prob", connector=SPOKEN), FAST),
    "likelihood_unscaled": Arm(
        likelihood(formula="mean_prob", connector=SPOKEN), {"scale_rewards": "none"}
    ),
    "likelihood_and_length": Arm([likelihood(formula="mean_prob", connector=SPOKEN), LENGTH]),
    "likelihood_and_f1": Arm(
        [likelihood(formula="mean_prob", connector=SPOKEN), {"type": "token_f1"}]
    ),
    "supervised_and_inverse": Arm(
        [
            supervised(connector=SPOKEN, scored_by="reference"),
            inverse_loss(scored_by="reference", weight=0.1),
        ]
    ),
    "supervised_and_inverse_fast": Arm(
        [
            supervised(connector=SPOKEN, scored_by="reference"),
            inverse_loss(scored_by="reference", weight=0.1),
        ],
        FAST,
    ),
    "both_unscaled": Arm(
        [*BOTH_AND_LENGTH, STATEMENT], {"learning_rate": 2.0e-4, "scale_rewards": "none"}, main=True
    ),
    "both_and_length_2e4": Arm(BOTH_AND_LENGTH, {"learning_rate": 2.0e-4, "beta": 0.1}, main=True),
    "likelihood_long": Arm(likelihood(formula="mean_prob"), LONG),
    "token_f1": Arm({"type": "token_f1"}),
    "self_certainty": Arm({"type": "self_certainty"}),
    "inverse_loss_original": Arm(inverse_loss(formula="original")),
    "inverse_loss_reference_file": Arm(
        inverse_loss(scored_by="reference"), train="train_unsupervised.jsonl"
    ),
    "inverse_loss_reference_240": Arm(
        inverse_loss(scored_by="reference"),
        {"max_steps": 240, "save_steps": 60},
        train="train_unsupervised.jsonl",
    ),
    "inverse_loss_file_fast": Arm(
        inverse_loss(scored_by="reference"), FAST, train="train_unsupervised.jsonl"
    ),
    "inverse_loss_file_vote": Arm(
        [inverse_loss(scored_by="reference"), {"type": "majority_vote"}],
        FAST,
        train="train_unsupervised.jsonl",
    ),
    "inverse_loss_slow": Arm(inverse_loss(), SLOW),
    "inverse_loss_reference_fast": Arm(inverse_loss(scored_by="reference"), FAST),
    "inverse_loss_hot": Arm(inverse_loss(), {"beta": 0.0, "learning_rate": 1.0e-3}),
}


def schedule() -> list[tuple[str, int]]:
    """(arm, seed): every arm once, then the main arms again."""
    first = [(name, SEEDS[0]) for name in ARMS]
    return first + [(name, seed) for seed in SEEDS[1:] for name, arm in ARMS.items() if arm.main]

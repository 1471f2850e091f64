"""What is likely to go wrong with a run, the worst first. Needs no model; a probe adds to it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from remote_trainer.config import RunConfig
from remote_trainer.forecast.answer_lengths import AnswerLengths
from remote_trainer.forecast.figures import Probe
from remote_trainer.rewards.formulas.answer_likelihood import SHORT_ANSWER_TOKENS

# docs/forecast.md says where these come from.
MEASURABLE_KL = 0.01
GOOD_KL = 0.2
"""Nats per token at the end of runs that learnt."""
FASTEST_KL = 0.1
"""Nats per token after ten updates; good runs had half of it at most."""
FASTEST_RATE = 2e-4
MOST_CUT = 0.5
LEAST_RIGHT = 0.05
MOST_WITHOUT_SPREAD = 0.5
MOST_OVER_LIMIT = 0.1
FEW_ROWS = 50
MEANS_OF_PROBABILITIES = ("mean_prob", "coverage_prob")
BY_LIKELIHOOD = ("inverse_loss", "self_certainty", "majority_vote")


@dataclass(frozen=True)
class Known:
    """What is known of a run before it."""

    config: RunConfig
    rows: int
    """For training."""
    answers: AnswerLengths | None = None
    """None without references, or without the tokenizer."""
    probe: Probe | None = None


@dataclass(frozen=True)
class Risk:
    """One likely failure, under a name that does not change."""

    name: str
    text: str


def risks_of(known: Known) -> list[Risk]:
    """All that apply, the worst first."""
    texts = ((name, find(known)) for name, find in _RISKS.items())
    return [Risk(name, text) for name, text in texts if text is not None]


def _will_not_move(known: Known) -> str | None:
    if known.probe is None or known.probe.divergence.after_all >= MEASURABLE_KL:
        return None
    found = known.probe.divergence
    return (
        f"the run will not move the model: {found.updates} updates change it by a KL of about "
        f"{found.after_all:.1g} nats per token, and under {MEASURABLE_KL:g} no change can be "
        f"measured; {_faster(known.config.training.learning_rate, found.after_all)}"
    )


def _faster(rate: float, kl: float) -> str:
    """KL grows with the square of the learning rate."""
    if kl <= 0:
        return "no probed update had a group with signal (see training.group_filter.min_std)"
    wanted = rounded(min(FASTEST_RATE, rate * math.sqrt(GOOD_KL / kl)))
    if wanted <= rate:
        return "write more updates (training.max_steps)"
    change = kl * (wanted / rate) ** 2
    text = f"training.learning_rate: {wanted:.1e} would change it by about {change:.1g}"
    return text if change >= MEASURABLE_KL else f"{text}; write more updates, too"


def rounded(rate: float) -> float:
    """To one digit."""
    return float(f"{rate:.0e}")


def _too_fast(known: Known) -> str | None:
    if known.probe is None or known.probe.divergence.after_10 <= FASTEST_KL:
        return None
    kl, rate = known.probe.divergence.after_10, known.config.training.learning_rate
    slower = rounded(rate * math.sqrt(FASTEST_KL / 2 / kl))
    return (
        f"training is too fast: after 10 updates the KL is about {kl:.1g} nats per token, where "
        f"the guard often stops runs; write training.learning_rate: {slower:.1e}"
    )


def _cut(known: Known) -> str | None:
    if known.probe is None or known.probe.completions.cut_share <= MOST_CUT:
        return None
    return (
        f"{known.probe.completions.cut_share:.0%} of the completions are cut at "
        f"training.max_completion_length={known.config.training.max_completion_length}; raise it, "
        "or ask for shorter answers in data.system_prompt"
    )


def _out_of_reach(known: Known) -> str | None:
    right = known.probe.right_answers if known.probe else None
    if right is None or right.right >= LEAST_RIGHT:
        return None
    return (
        f"the answers are out of reach: {right.right:.1%} of the samples are right, and "
        f"{right.never_right:.0%} of the rows have no right one, so there is little to learn from; "
        "take easier rows or a larger model"
    )


def _no_spread(known: Known) -> str | None:
    if known.probe is None or known.probe.rewards.groups_without_spread <= MOST_WITHOUT_SPREAD:
        return None
    return (
        f"{known.probe.rewards.groups_without_spread:.0%} of the groups have rewards without "
        "spread and train nothing; choose another reward, raise generation.temperature, or lower "
        "training.group_filter.min_std"
    )


def _short_limit(known: Known) -> str | None:
    if known.answers is None or known.answers.over_limit <= MOST_OVER_LIMIT:
        return None
    if not any(reward.needs_answer for reward in known.config.reward):
        return None
    return (
        f"{known.answers.over_limit:.0%} of the reference answers are longer than "
        f"training.max_completion_length={known.config.training.max_completion_length} tokens; "
        "raise it"
    )


def _long_answers(known: Known) -> str | None:
    if known.answers is None or known.answers.median <= SHORT_ANSWER_TOKENS:
        return None
    for reward in known.config.reward:
        if (formula := getattr(reward, "formula", None)) in MEANS_OF_PROBABILITIES:
            return (
                f"reward {reward.type} with formula {formula} averages probabilities, which says "
                f"little on long answers (median {known.answers.median:g} tokens); write "
                "type: answer_likelihood and formula: mean_logprob"
            )
    return None


def _no_kl_term(known: Known) -> str | None:
    rewards = known.config.reward
    alone = not any(reward.needs_answer for reward in rewards)
    if known.config.kl_weight or not alone:
        return None
    for reward in rewards:
        if reward.type in BY_LIKELIHOOD:
            return (
                f"training.beta: 0 lets reward {reward.type} make every answer the same, because "
                "nothing holds the model to its start; write training.beta: 0.3"
            )
    return None


def _few_rows(known: Known) -> str | None:
    if known.rows >= FEW_ROWS:
        return None
    return f"{known.rows} rows are few: the model may learn them by heart; write {FEW_ROWS} or more"


_RISKS: dict[str, Callable[[Known], str | None]] = {
    "will_not_move": _will_not_move,
    "too_fast": _too_fast,
    "cut": _cut,
    "out_of_reach": _out_of_reach,
    "no_spread": _no_spread,
    "limit_under_answers": _short_limit,
    "mean_prob_on_long_answers": _long_answers,
    "no_kl_term": _no_kl_term,
    "few_rows": _few_rows,
}

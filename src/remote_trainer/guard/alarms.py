"""Every alarm: which signal it watches, from where on it warns and stops, and what to do then.

The levels were chosen on recorded runs; docs/guard.md has their false alarms and misses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["warn", "stop"]


@dataclass(frozen=True)
class Levels:
    """From where on an alarm warns and stops; None: never."""

    warn: float | None
    stop: float | None


@dataclass(frozen=True)
class Alarm:
    """One way in which training goes wrong, as `signals` shows it."""

    worse: Literal["higher", "lower"]
    levels: Levels
    seen: str
    """What the value is, in a sentence with {value}."""
    advice: tuple[str, ...]
    """What to change, a sentence each."""
    source: str
    """Where rule and levels come from."""
    already: str = ""
    """What to say, with {value}, where it was so before training: another cause, another remedy.
    Empty where that cannot be: the signal is a change."""

    def severity(self, value: float | None, levels: Levels) -> Severity | None:
        """How bad a value is; None: not at all, or there is no value."""
        if value is None:
            return None
        if _beyond(value, levels.stop, self.worse):
            return "stop"
        return "warn" if _beyond(value, levels.warn, self.worse) else None


def _beyond(value: float, level: float | None, worse: str) -> bool:
    if level is None:
        return False
    return value >= level if worse == "higher" else value <= level


_REWARD_ADVICE = "Choose another reward, or add one for the behaviour you want."
_PACE_ADVICE = "Lower training.learning_rate or training.max_steps."
_LENGTH_ADVICE = "Add the reward length_limit, or raise training.max_completion_length."
_TERSE = (
    "The model did this before training: ask for longer answers in data.system_prompt, or set "
    "generation.min_new_tokens."
)
_MEASURED = "measured on this project's recorded runs"

ALARMS: Mapping[str, Alarm] = {
    # The held-out probe: the same rows, answered greedily every few updates.
    "probe_accuracy_lost": Alarm(
        "higher",
        Levels(warn=0.03, stop=0.1),
        "the share of right answers to the probe's rows fell by at least {value:.2f}",
        (_REWARD_ADVICE, _PACE_ADVICE),
        _MEASURED,
    ),
    "probe_likelihood_lost": Alarm(
        "higher",
        Levels(warn=0.03, stop=0.1),
        "the likelihood of the reference answers after the probe's completions fell by at least "
        "{value:.2f} since the start",
        (_REWARD_ADVICE, _PACE_ADVICE),
        _MEASURED,
    ),
    "probe_fluency_lost": Alarm(
        "higher",
        Levels(warn=0.5, stop=1.0),
        "the untrained model finds the probe's completions less likely than at the start, by at "
        "least {value:.2f} nats a token",
        ("Raise training.beta.", _PACE_ADVICE),
        _MEASURED,
    ),
    "probe_duplicate_share": Alarm(
        "higher",
        Levels(warn=0.15, stop=0.4),
        "{value:.0%} of the probe's rows with different references got the same answer (not "
        "counting what was over 5% before training)",
        (_REWARD_ADVICE, _PACE_ADVICE),
        "constant answers end majority voting (SRT, arXiv 2505.21444); " + _MEASURED,
        "before training {value:.0%} of the probe's rows with different references got the same "
        "answer. The model did this before training: use a better base model, or say in "
        "data.system_prompt how to answer.",
    ),
    "prompt_dependence_lost": Alarm(
        "higher",
        Levels(warn=0.5, stop=0.8),
        "answers depend on their prompt at least {value:.0%} less than at the start",
        (_REWARD_ADVICE, _PACE_ADVICE),
        _MEASURED,
    ),
    # The completions of the last five logged updates.
    "short_share": Alarm(
        "higher",
        Levels(warn=0.3, stop=0.5),
        "{value:.0%} of the completions are shorter than half their reference (without one: have "
        "at most two tokens), not counting what was over 5% in the first updates",
        (_REWARD_ADVICE, "generation.min_new_tokens sets a least length."),
        "products of probabilities collapse in length (arXiv 2603.08660); " + _MEASURED,
        "in the first updates {value:.0%} of the completions are shorter than half their reference "
        "(without one: have at most two tokens). " + _TERSE,
    ),
    "length_to_reference": Alarm(
        "lower",
        Levels(warn=0.5, stop=0.3),
        "completions have {value:.2f} times the length of their references (of the first "
        "updates, where they were shorter then)",
        (_REWARD_ADVICE, "generation.min_new_tokens sets a least length."),
        _MEASURED,
        "in the first updates completions have {value:.2f} times the length of their references. "
        + _TERSE,
    ),
    "length_growth": Alarm(
        "higher",
        Levels(warn=2.0, stop=4.0),
        "completions are {value:.1f} times as long as in the first updates",
        (_LENGTH_ADVICE,),
        "mean log-probability is raised by longer text (Intuitor, arXiv 2505.19590, B.4)",
    ),
    "duplicate_share": Alarm(
        "higher",
        Levels(warn=0.15, stop=0.4),
        "{value:.0%} of the completions give the same answer to rows with different references "
        "(not counting what was over 5% in the first updates)",
        (_REWARD_ADVICE, _PACE_ADVICE),
        "constant answers end majority voting (SRT, arXiv 2505.21444); " + _MEASURED,
    ),
    "distinct_3_kept": Alarm(
        "lower",
        Levels(warn=0.15, stop=0.02),
        "the variety of word triples in completions is {value:.2f} times that of the first updates",
        (_REWARD_ADVICE, _PACE_ADVICE),
        _MEASURED,
    ),
    "loop_share": Alarm(
        "higher",
        Levels(warn=0.05, stop=0.2),
        "{value:.0%} of the completions repeat themselves (not counting those of the first "
        "updates)",
        ("Add the reward repetition, or length_limit.", _PACE_ADVICE),
        "RLPR's window rule (arXiv 2506.18254) and Whisper's zlib ratio",
        "in the first updates {value:.0%} of the completions repeat themselves. The model did "
        "this before training: use a model that was trained to answer, or lower "
        "training.max_completion_length.",
    ),
    "clipped_rise": Alarm(
        "higher",
        Levels(warn=0.35, stop=0.4),
        "the share of completions cut at the length limit rose by {value:.2f}",
        (_LENGTH_ADVICE,),
        _MEASURED,
    ),
    "entropy_growth": Alarm(
        "higher",
        Levels(warn=1.4, stop=1.75),
        "token entropy is {value:.2f} times that of the first updates",
        ("Raise training.beta.", _PACE_ADVICE),
        "entropy explosion (TRL issue 6407); " + _MEASURED,
    ),
    "entropy": Alarm(
        "lower",
        Levels(warn=0.1, stop=0.02),
        "token entropy is {value:.3f} nats (counted from 0.2 if it started lower): all "
        "completions of a prompt become the same",
        (_PACE_ADVICE,),
        _MEASURED,
        "in the first updates token entropy is {value:.3f} nats: the model gives almost the same "
        "answer every time, so there is little to compare. Raise generation.temperature.",
    ),
    "kl": Alarm(
        "higher",
        Levels(warn=3.0, stop=None),
        "the policy is {value:.2f} nats a token further from the untrained model than at the start",
        ("Raise training.beta.", _PACE_ADVICE),
        _MEASURED,
    ),
    "filtered_share": Alarm(
        "higher",
        Levels(warn=0.75, stop=None),
        "{value:.0%} of the groups have no signal and do not train (not counting what was over "
        "50% in the first updates)",
        (
            "Nothing is left to learn, or the reward cannot distinguish the completions: lower "
            "training.max_steps or training.group_filter.min_std.",
        ),
        "RLPR's filter (arXiv 2506.18254)",
        "in the first updates {value:.0%} of the groups have no signal: the reward cannot "
        "distinguish their completions, because all are right, all wrong, all equal or all "
        "invalid. Choose other data or another reward, or raise generation.temperature.",
    ),
    "reward_up_probe_down": Alarm(
        "higher",
        Levels(warn=0.02, stop=0.06),
        "the reward rose while the likelihood of the probe's reference answers fell by at least "
        "{value:.2f}",
        (_REWARD_ADVICE,),
        "reward up, held-out down is what over-optimisation looks like; " + _MEASURED,
    ),
}

"""Every alarm, one entry each: its signal, its levels, what it says and what to do then.

The config's levels, the guard, docs/guard.md and configs/default.yaml are made from these entries.
The levels were chosen on recorded runs; docs/guard.md has their false alarms and misses.
"""

from dataclasses import dataclass
from typing import Literal

from remote_trainer.guard.signals import (
    Lines,
    Signal,
    Source,
    difference,
    loss,
    loss_while_reward_rose,
    ratio,
    relative_loss,
    rise,
    rise_of_median,
    rise_of_probe,
    scaled,
)
from remote_trainer.metrics.metric import NATS, SHARE

Severity = Literal["warn", "stop"]


@dataclass(frozen=True)
class Levels:
    """From where on an alarm warns and stops; None: never."""

    warn: float | None
    stop: float | None


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One way in which training goes wrong."""

    signal: Signal
    levels: Levels
    worse: Literal["higher", "lower"] = "higher"
    unit: str
    seen: str
    """What the value is, in half a sentence with {value}."""
    at_start: str = ""
    """The same, with its own remedy, if the start itself was beyond a level. Empty if the start is
    not judged, because the signal is a change."""
    advice: tuple[str, ...]
    """What to change, a sentence each."""
    evidence: str
    """Where rule and levels come from: literature, and values in the recorded runs."""

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


def signals_of(source: Source, first: Lines, latest: Lines) -> dict[str, float | None]:
    """The values that alarms look at after an update, or after a probe; see `Signal.now`."""
    return {
        name: alarm.signal.now(first, latest)
        for name, alarm in ALARMS.items()
        if alarm.signal.of == source
    }


LEAST_LENGTH = 8
"""Tokens; completions that start shorter have room to grow."""
LEAST_ENTROPY = 0.2
"""Nats per token; a model that starts with less is compared with its own start."""
USUAL_SHARE, USUALLY_FILTERED = 0.05, 0.5
"""Of short or equal answers, and of groups without signal: what a sound model may start with."""
RATIO = "ratio"

_REWARD_ADVICE = "Choose another reward, or add one for the behaviour you want."
_PACE_ADVICE = "Lower training.learning_rate or training.max_steps."
_BETA_ADVICE = "Raise training.beta."
_LENGTH_ADVICE = "Add the reward length_limit, or raise training.max_completion_length."
_SHORT_ADVICE = "Set a minimum length with generation.min_new_tokens."
_SHORT_AT_START = (
    "Ask for longer answers in data.system_prompt, or set a minimum length with "
    "generation.min_new_tokens."
)
_OVER_USUAL = f"after subtracting what exceeded {USUAL_SHARE:.0%} in the first updates"

ALARMS: dict[str, Alarm] = {
    # The held-out probe: the same rows, answered greedily every few updates.
    "probe_accuracy_lost": Alarm(
        signal=loss("accuracy"),
        levels=Levels(warn=0.03, stop=0.1),
        unit=SHARE,
        seen="the probe's accuracy fell by at least {value:.2f}",
        advice=(_REWARD_ADVICE, _PACE_ADVICE),
        evidence="accuracy is the goal",
    ),
    "probe_likelihood_lost": Alarm(
        signal=loss("answer_likelihood"),
        levels=Levels(warn=0.03, stop=0.1),
        unit=SHARE,
        seen="the likelihood of the reference answers after the probe's completions fell by at "
        "least {value:.2f}",
        advice=(_REWARD_ADVICE, _PACE_ADVICE),
        evidence="at most 0.01 in good runs, 0.1 in a bad one",
    ),
    "probe_fluency_lost": Alarm(
        signal=loss("fluency"),
        levels=Levels(warn=0.5, stop=1.0),
        unit=NATS,
        seen="the log-probability of the probe's completions under the base model fell by at "
        "least {value:.2f} nats per token",
        advice=(_BETA_ADVICE, _PACE_ADVICE),
        evidence="at most 0.1 in good runs, 7.6 in a bad one",
    ),
    "general_logprob_lost": Alarm(
        signal=loss("general_logprob"),
        levels=Levels(warn=0.2, stop=None),
        unit=NATS,
        seen="the log-probability of everyday English fell by at least {value:.2f} nats per token: "
        "the model forgets what it could do",
        advice=(_BETA_ADVICE, _PACE_ADVICE),
        evidence="0.2 nats: perplexity grows by 22 %, over half of the step from GPT-2 medium to "
        "GPT-2 small on WikiText-103 (0.35); not measured in these runs",
    ),
    "probe_duplicate_share": Alarm(
        signal=rise_of_probe("duplicate_share", USUAL_SHARE),
        levels=Levels(warn=0.15, stop=0.4),
        unit=SHARE,
        seen="{value:.0%} of the probe's rows got the same answer as a row with another reference "
        f"(after subtracting what exceeded {USUAL_SHARE:.0%} before training)",
        at_start="before training {value:.0%} of the probe's rows got the same answer as a row "
        "with another reference. Use a better base model, or say in data.system_prompt how to "
        "answer.",
        advice=(_REWARD_ADVICE, _PACE_ADVICE),
        evidence="constant answers end majority voting (SRT, arXiv 2505.21444); 0 in all runs",
    ),
    "prompt_dependence_lost": Alarm(
        signal=relative_loss("prompt_dependence"),
        levels=Levels(warn=0.5, stop=0.8),
        unit=SHARE,
        seen="answers depend on their prompt at least {value:.0%} less than at the start",
        advice=(_REWARD_ADVICE, _PACE_ADVICE),
        evidence="0 in all runs",
    ),
    # The completions of the last five logged updates.
    "short_share": Alarm(
        signal=rise("short_share", USUAL_SHARE),
        levels=Levels(warn=0.3, stop=0.5),
        unit=SHARE,
        seen="{value:.0%} of the completions are shorter than half their reference, or have at "
        f"most two tokens if there is none ({_OVER_USUAL})",
        at_start="in the first updates {value:.0%} of the completions are shorter than half their "
        f"reference, or have at most two tokens if there is none. {_SHORT_AT_START}",
        advice=(_REWARD_ADVICE, _SHORT_ADVICE),
        evidence="products of probabilities collapse in length (arXiv 2603.08660); at most 0.01 in "
        "good runs; without references, 0.21 where some prompts ask for yes or no",
    ),
    "length_to_reference": Alarm(
        signal=scaled("length_to_reference", 1.0),
        levels=Levels(warn=0.5, stop=0.3),
        worse="lower",
        unit=RATIO,
        seen="completions have {value:.2f} times the length of their references (of the first "
        "updates, if those were shorter)",
        at_start="in the first updates completions have {value:.2f} times the length of their "
        f"references. {_SHORT_AT_START}",
        advice=(_REWARD_ADVICE, _SHORT_ADVICE),
        evidence="at least 4.0 in good runs, 0.6 in a bad one",
    ),
    "length_growth": Alarm(
        signal=ratio("completion_tokens_mean", LEAST_LENGTH),
        levels=Levels(warn=2.0, stop=4.0),
        unit=RATIO,
        seen="completions are {value:.1f} times as long as in the first updates",
        advice=(_LENGTH_ADVICE,),
        evidence="longer text raises mean log-probabilities (Intuitor, arXiv 2505.19590, B.4); 1.1 "
        "in all runs",
    ),
    "duplicate_share": Alarm(
        signal=rise("duplicate_share", USUAL_SHARE),
        levels=Levels(warn=0.15, stop=0.4),
        unit=SHARE,
        seen="{value:.0%} of the completions give the same answer as one to a row with another "
        f"reference ({_OVER_USUAL})",
        advice=(_REWARD_ADVICE, _PACE_ADVICE),
        evidence="as probe_duplicate_share",
    ),
    "distinct_3_kept": Alarm(
        signal=ratio("distinct_3"),
        levels=Levels(warn=0.15, stop=0.02),
        worse="lower",
        unit=RATIO,
        seen="the share of distinct word triples in completions is {value:.2f} times that of the "
        "first updates",
        advice=(_REWARD_ADVICE, _PACE_ADVICE),
        evidence="0.22 in the best run: confident answers make the 8 completions of a prompt alike",
    ),
    "loop_share": Alarm(
        signal=rise("loop_share"),
        levels=Levels(warn=0.05, stop=0.2),
        unit=SHARE,
        seen="{value:.0%} of the completions repeat themselves (after subtracting the share in the "
        "first updates)",
        at_start="in the first updates {value:.0%} of the completions repeat themselves. Use an "
        "instruction-tuned model, or lower training.max_completion_length.",
        advice=("Add the reward repetition or length_limit.", _PACE_ADVICE),
        evidence="RLPR's window rule (arXiv 2506.18254), zlib ratio of Whisper",
    ),
    "clipped_rise": Alarm(
        signal=difference("clipped_share"),
        levels=Levels(warn=0.35, stop=0.4),
        unit=SHARE,
        seen="the share of completions cut at the length limit rose by {value:.2f}",
        advice=(_LENGTH_ADVICE,),
        evidence="at most 0.11 in these runs; in fourteen longer ones up to 0.25 by chance, "
        "because the first five updates see ten prompts",
    ),
    "entropy_growth": Alarm(
        signal=ratio("entropy", LEAST_ENTROPY),
        levels=Levels(warn=1.4, stop=1.75),
        unit=RATIO,
        seen="token entropy is {value:.2f} times that of the first updates",
        advice=(_BETA_ADVICE, _PACE_ADVICE),
        evidence="entropy explosion (TRL issue 6407); at most 1.3 in good runs, 1.48 in a bad one",
    ),
    "entropy": Alarm(
        signal=scaled("entropy", LEAST_ENTROPY),
        levels=Levels(warn=0.1, stop=0.02),
        worse="lower",
        unit=NATS,
        seen="token entropy is {value:.3f} nats "
        f"(scaled to a start of {LEAST_ENTROPY:g} if it started lower): "
        "all completions of a prompt become the same",
        at_start="in the first updates token entropy is {value:.3f} nats: the model gives almost "
        "the same answer every time, so rewards have little to compare. Raise "
        "generation.temperature.",
        advice=(_PACE_ADVICE,),
        evidence="0.2 in the best run",
    ),
    "kl": Alarm(
        signal=rise_of_median("kl"),
        levels=Levels(warn=3.0, stop=None),
        unit=NATS,
        seen="the KL divergence from the base model rose by {value:.2f} nats per token",
        advice=(_BETA_ADVICE, _PACE_ADVICE),
        evidence="up to 1.4 in good runs, and no more than 0.25 in a ruined one. The estimate has "
        "heavy tails: 31 in one update of a run that went well, a median of 64 in another",
    ),
    "filtered_share": Alarm(
        signal=rise("filtered_share", USUALLY_FILTERED),
        levels=Levels(warn=0.75, stop=None),
        unit=SHARE,
        seen="{value:.0%} of the groups have no signal and do not train (after subtracting what "
        f"exceeded {USUALLY_FILTERED:.0%} in the first updates)",
        at_start="in the first updates {value:.0%} of the groups have no signal: the reward cannot "
        "distinguish their completions, because all are right, all wrong, all equal or all "
        "invalid. Choose other data or another reward, or raise generation.temperature.",
        advice=(
            "Nothing is left to learn, or the reward cannot distinguish the completions: lower "
            "training.max_steps or training.group_filter.min_std.",
        ),
        evidence="RLPR's filter (arXiv 2506.18254); nothing to learn is not harm",
    ),
    "reward_up_probe_down": Alarm(
        signal=loss_while_reward_rose("answer_likelihood"),
        levels=Levels(warn=0.02, stop=0.06),
        unit=SHARE,
        seen="the reward rose while the likelihood of the probe's reference answers fell by at "
        "least {value:.2f}",
        advice=(_REWARD_ADVICE,),
        evidence="over-optimisation; 0.01 in good runs, 0.1 in a bad one",
    ),
}

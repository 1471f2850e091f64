"""Every key of metrics.jsonl, one entry each, in the order of the file."""

from statistics import fmean, stdev

from remote_trainer.means import mean_of_known
from remote_trainer.metrics.metric import NATS, SECONDS, SHARE, TOKENS, LoggedMetric
from remote_trainer.records import Rollout
from remote_trainer.text_statistics import (
    distinct_3,
    duplicate_share,
    length_to_reference,
    loop_share,
    short_share,
)


def in_rows() -> list[LoggedMetric]:
    """What the report's table of training and the terminal show, in their order."""
    placed = [(metric.row, metric) for metric in METRICS.values() if metric.row is not None]
    return [metric for _, metric in sorted(placed, key=lambda each: each[0])]


def charted(*charts: str) -> list[LoggedMetric]:
    """What these charts of the report draw: in the order of the rows, then of the file."""
    rows = in_rows()
    others = [metric for metric in METRICS.values() if metric.row is None]
    return [metric for metric in (*rows, *others) if metric.chart in charts]


def _rewards(rollout: Rollout) -> list[float]:
    return [result.reward for result in rollout.results if result.reward is not None]


def _spread(rollout: Rollout) -> float | None:
    rewards = _rewards(rollout)
    return stdev(rewards) if len(rewards) > 1 else None


def _duplicates(rollout: Rollout) -> float:
    questions = [
        str(each.answer) if each.answer is not None else repr(each.sample.prompt)
        for each in rollout.completions
    ]
    return duplicate_share(rollout.texts, questions)


def _mean_rewards(rollout: Rollout) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    results = rollout.results
    for name in results[0].rewards if results else ():
        means[name] = mean_of_known(result.rewards[name] for result in results)
    return means


_LOGGED = (
    LoggedMetric("step", "Update", "updates done so far", window="last"),
    LoggedMetric(
        "kl",
        "KL to the reference model",
        "nats per token; distance from the reference model",
        NATS,
        "how far the model has moved from the model without the trained adapter",
        from_trl=True,
        row=3,
        chart="alone",
        compared=True,
        brief="KL {}",
    ),
    LoggedMetric(
        "entropy",
        "Entropy",
        "nats per token; near 0 all completions of a prompt are the same",
        NATS,
        "entropy of the distribution of the next token; near 0 all completions of a prompt are the "
        "same",
        from_trl=True,
        row=4,
        chart="alone",
        compared=True,
    ),
    LoggedMetric(
        "loss",
        "Loss",
        "what the optimizer minimises; with GRPO it does not measure progress",
        from_trl=True,
        row=14,
    ),
    LoggedMetric(
        "grad_norm",
        "Gradient norm",
        "norm of the gradient of an update",
        from_trl=True,
        window="last",
        row=15,
    ),
    LoggedMetric(
        "learning_rate",
        "Learning rate",
        "step size of the optimizer",
        from_trl=True,
        window="last",
        row=16,
    ),
    LoggedMetric(
        "epoch",
        "Epoch",
        "passes over the data so far; 1.5 is one and a half",
        from_trl=True,
        window="last",
    ),
    LoggedMetric(
        "reward",
        "Reward",
        "mean over the judged completions; training maximises it",
        "that of the reward",
        of=lambda rollout: mean_of_known(_rewards(rollout)),
        row=1,
        chart="alone",
        compared=True,
        brief="reward {}",
    ),
    LoggedMetric(
        "reward_std",
        "Standard deviation of the reward",
        "over the completions of an update; at 0 nothing is learnt",
        "that of the reward",
        of=_spread,
        row=2,
    ),
    LoggedMetric(
        "completion_tokens_mean",
        "Completion length",
        "mean number of tokens",
        TOKENS,
        "mean number of tokens of a completion",
        of=lambda rollout: fmean(rollout.tokens),
        row=5,
        chart="alone",
        compared=True,
    ),
    LoggedMetric(
        "clipped_share",
        "Truncated completions",
        "share of completions that reached the length limit",
        SHARE,
        of=lambda rollout: fmean(not each.ended for each in rollout.completions),
        row=6,
        chart="alone",
        brief="cut {}",
    ),
    LoggedMetric(
        "distinct_3",
        "Distinct word triples",
        "share of all; falls as texts become alike",
        SHARE,
        "share of distinct ones among all word triples; falls as texts become alike; null under "
        "100 triples",
        of=lambda rollout: distinct_3(rollout.texts),
        row=9,
        chart="repetition",
    ),
    LoggedMetric(
        "duplicate_share",
        "Duplicates",
        "share of completions that also answer another prompt",
        SHARE,
        of=_duplicates,
        row=7,
        chart="repetition",
    ),
    LoggedMetric(
        "loop_share",
        "Loops",
        "share of completions that repeat themselves",
        SHARE,
        of=lambda rollout: loop_share(rollout.texts),
        row=8,
        chart="repetition",
    ),
    LoggedMetric(
        "short_share",
        "Short completions",
        "share of completions shorter than half of their reference answer; without one, of at "
        "most two tokens",
        SHARE,
        of=lambda rollout: short_share(rollout.content_tokens, rollout.reference_tokens),
    ),
    LoggedMetric(
        "length_to_reference",
        "Length relative to the reference",
        "mean length of completions over that of their reference answers; null where no row has "
        "one",
        "ratio",
        of=lambda rollout: length_to_reference(rollout.content_tokens, rollout.reference_tokens),
    ),
    LoggedMetric(
        "unjudged_share",
        "Not judged",
        "share of completions that cannot be judged",
        SHARE,
        of=lambda rollout: fmean(result.reward is None for result in rollout.results),
        row=10,
    ),
    LoggedMetric(
        "floored_share",
        "Invalid completions",
        "share of completions that were empty, truncated or rejected by a gate",
        SHARE,
        of=lambda rollout: fmean(result.invalid for result in rollout.results),
        row=11,
    ),
    LoggedMetric(
        "filtered_share",
        "Groups without signal",
        "share of groups that are left out of the loss",
        SHARE,
        "share of groups without signal, which are left out of the loss",
        of=lambda rollout: rollout.groups_filtered,
        row=12,
    ),
    LoggedMetric(
        "skipped_share",
        "Updates without signal",
        "share of updates where nothing was left to train on",
        SHARE,
        of=lambda rollout: float(not rollout.has_signal),
        row=13,
    ),
    LoggedMetric(
        "rewards",
        "Parts of the reward",
        "mean of each part",
        "those of the rewards",
        of=_mean_rewards,
    ),
    LoggedMetric(
        "logged",
        "Logged by reward functions",
        "values that your reward functions passed to log_metric; null if there are none",
        of=lambda rollout: dict(rollout.logged) or None,
    ),
    LoggedMetric(
        "scores_from",
        "Sources of log-probabilities",
        "how many log-probabilities came from `sampling`, `kl_term`, `update` and a forward `pass` "
        "of their own",
        "count",
        of=lambda rollout: dict(rollout.scores_from),
    ),
    LoggedMetric(
        "seconds_generate", "Time for sampling", "time spent on sampling", SECONDS, chart="phase"
    ),
    LoggedMetric(
        "seconds_score", "Time for rewards", "time spent on rewards", SECONDS, chart="phase"
    ),
    LoggedMetric(
        "seconds_update", "Time for the rest", "all other time of an update", SECONDS, chart="phase"
    ),
    LoggedMetric(
        "seconds_step",
        "Time per update",
        "seconds",
        SECONDS,
        "total time of an update",
        row=17,
        chart="overlaid",
        compared=True,
        brief="{} s",
    ),
    LoggedMetric(
        "tokens_per_second",
        "Throughput",
        "tokens per second",
        "tokens per second",
        "sampled tokens divided by the total time of the update",
        row=18,
    ),
    LoggedMetric(
        "sampler_gap",
        "Sampler gap",
        "mean distance between the log-probabilities of the sampled ids at sampling and those of "
        "the trained weights",
        NATS,
    ),
    LoggedMetric(
        "peak_memory_mb",
        "Peak memory",
        "megabytes",
        "MB",
        "peak memory since the start: of the GPU if there is one, otherwise of the process",
        window="last",
        row=19,
    ),
    LoggedMetric(
        "probe",
        "Probe",
        "what the guard measured on held-out rows since the previous line; null if it did not",
        window="last",
    ),
    LoggedMetric(
        "seconds_probe",
        "Time for probes",
        "time spent on probes since the previous line",
        SECONDS,
        window="sum",
    ),
    LoggedMetric("guard", "Guard", "messages of the guard at this update", window="list"),
)
METRICS: dict[str, LoggedMetric] = {metric.key: metric for metric in _LOGGED}

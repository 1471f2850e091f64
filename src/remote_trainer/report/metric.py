"""Each number of the report: its name, what it means, and how it is written."""

from dataclasses import dataclass

NOTHING = "\N{EN DASH}"
_NOISE_DIGITS = 12  # 0.3 - 0.2 - 0.1 is not quite 0 in binary


@dataclass(frozen=True)
class Metric:
    """A key of metrics.jsonl or eval.json. Shares (0 to 1) are written as percentages."""

    key: str
    title: str
    note: str
    share: bool = False

    def text(self, value: float | None) -> str:
        """``value`` in three significant digits, an en dash for None."""
        if value is None:
            return NOTHING
        return f"{number(100 * value)} %" if self.share else number(value)

    def change(self, value: float | None) -> str:
        """A signed difference; that of two shares is in percentage points."""
        if value is None:
            return NOTHING
        value = round(value, _NOISE_DIGITS)
        text = f"{number(100 * value)} points" if self.share else number(value)
        return f"+{text}" if value > 0 else text


def number(value: float | None) -> str:
    """Three significant digits; counts, and anything from a thousand up, as a whole number."""
    if value is None:
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    value += 0.0  # -0.0 becomes 0.0
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def difference(before: float | None, after: float | None) -> float | None:
    """``after - before``, None where one is missing."""
    return None if before is None or after is None else after - before


def _share(key: str, title: str, note: str) -> Metric:
    return Metric(key, title, f"share of {note}", share=True)


_DISTINCT = _share("distinct_3", "Different word triples", "all; falls as texts become alike")
_LENGTH = Metric("completion_tokens_mean", "Completion length", "mean number of tokens")

LOGGED = (
    Metric("reward", "Reward", "mean over the judged completions; what training raises"),
    Metric("reward_std", "Spread of the reward", "standard deviation; at 0 nothing is learnt"),
    Metric("kl", "KL to the reference model", "nats per token; how far the model has moved"),
    Metric("entropy", "Entropy", "nats per token; near 0 the model always says the same"),
    _LENGTH,
    _share("clipped_share", "Cut at the limit", "completions that did not end by themselves"),
    _share("duplicate_share", "Duplicates", "completions that also answer another prompt"),
    _share("loop_share", "Loops", "completions that repeat themselves"),
    _DISTINCT,
    _share("unjudged_share", "Not judged", "completions that got no reward"),
    _share("floored_share", "Floored", "completions that were empty, cut or gated"),
    _share("filtered_share", "Groups without signal", "groups that trained nothing"),
    _share("skipped_share", "Updates without signal", "updates that trained nothing at all"),
    Metric("loss", "Loss", "what the optimizer minimises; with GRPO no sign of progress"),
    Metric("grad_norm", "Gradient norm", "length of the gradient of an update"),
    Metric("learning_rate", "Learning rate", "step size of the optimizer"),
    Metric("seconds_step", "Time per update", "seconds"),
    Metric("tokens_per_second", "Speed", "tokens per second"),
    Metric("peak_memory_mb", "Peak memory", "megabytes"),
)
EVALUATED = (
    _share("accuracy_greedy", "Accuracy, greedy", "rows answered right by the likeliest tokens"),
    _share("accuracy_sampled", "Accuracy, sampled", "right answers among those drawn at random"),
    _share("exact_match", "Exact match", "rows whose whole greedy answer is the reference"),
    Metric(
        "answer_logprob", "Log-probability of the reference", "nats per token; higher: likelier"
    ),
    Metric("reward", "Reward", "what training raises; alone no proof of better answers"),
    _LENGTH,
    _DISTINCT,
    _share("duplicate_share", "Duplicates", "greedy answers that also answer another row"),
)

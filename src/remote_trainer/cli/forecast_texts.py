"""A forecast as a short table."""

from typing import Any

RISKS_SHOWN = 3


def describe_probe(probe: dict[str, Any]) -> str:
    """What `remote_trainer.forecast.figures.Probe` holds, a line per topic."""
    rows = {
        "right answers": _right(probe["right_answers"]),
        "rewards": _rewards(probe["rewards"]),
        "completions": _completions(probe["completions"]),
        "an update": _update(probe["cost"]),
        "the run": _run(probe["cost"], probe["divergence"]["updates"]),
        "KL from the start": _divergence(probe["divergence"]),
    }
    title = f"probe ({probe['rows']} rows, {probe['samples']} samples each):"
    lines = [f"  {name:18} {text}" for name, text in rows.items() if text is not None]
    return "\n".join([title, *lines, *(f"  missing: {each}" for each in probe["missing"])])


def describe_risks(risks: list[dict[str, str]]) -> str:
    """The first few, which matter most."""
    shown = risks[:RISKS_SHOWN]
    lines = [f"{i}. {risk['text']}" for i, risk in enumerate(shown, start=1)]
    if more := len(risks) - len(shown):
        lines.append(f"and {more} more with --json")
    return "\n".join(["likely problems, the worst first:", *lines])


def _right(found: dict[str, Any] | None) -> str | None:
    if found is None:
        return None
    return (
        f"{found['right']:.1%} of the samples; {found['sometimes_right']:.0%} of the rows at "
        f"least once, {found['never_right']:.0%} never, {found['always_right']:.0%} always "
        f"({found['rows']} rows of {found['taken_from']})"
    )


def _rewards(found: dict[str, Any]) -> str:
    return (
        f"mean {_number(found['mean'])}, standard deviation in a group "
        f"{_number(found['std_in_group'])}; {found['groups_without_spread']:.0%} of the groups "
        "have no spread"
    )


def _completions(found: dict[str, Any]) -> str:
    return f"{found['tokens_mean']:.1f} tokens; {found['cut_share']:.0%} cut at the limit"


def _update(found: dict[str, Any]) -> str:
    return (
        f"{_duration(found['seconds_per_update'])}, {found['tokens_per_update']:,.0f} tokens; "
        f"peak memory {found['peak_memory_mb']:,.0f} MB"
    )


def _run(found: dict[str, Any], updates: int) -> str:
    evaluation = found["seconds_evaluation"]
    beside = "" if evaluation is None else f", {_duration(evaluation)} of it for evaluations"
    tokens = f"{found['tokens']:,.0f} tokens"
    return f"{_duration(found['seconds'])} for {updates} updates{beside}; {tokens}"


def _divergence(found: dict[str, Any]) -> str:
    return (
        f"about {found['after_10']:.1g} nats per token after 10 updates, {found['after_all']:.1g} "
        f"after {found['updates']} (extrapolated from {len(found['measured'])})"
    )


def _duration(seconds: float) -> str:
    """Two digits: the estimate is no more precise."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes = seconds / 60
    return f"{minutes:.2g} min" if minutes < 60 else f"{minutes / 60:.2g} h"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"

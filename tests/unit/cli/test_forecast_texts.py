"""The table of a forecast: its numbers, and what is left out."""

from typing import Any

from remote_trainer.cli.forecast_texts import describe_probe, describe_risks

PROBE: dict[str, Any] = {
    "rows": 16, "samples": 8,
    "right_answers": {
        "rows": 15, "right": 0.117, "sometimes_right": 0.4, "never_right": 0.6,
        "always_right": 0.0, "taken_from": "data.train",
    },
    "rewards": {"mean": 0.5, "std_in_group": None, "groups_without_spread": 0.25},
    "completions": {"tokens_mean": 10.94, "cut_share": 0.7421},
    "cost": {
        "seconds_per_update": 3.14, "tokens_per_update": 1234.0, "seconds_updates": 282.0,
        "seconds_evaluation": 90.0, "seconds": 372.0, "tokens": 111_060.0,
        "peak_memory_mb": 2048.0,
    },
    "divergence": {
        "measured": (1e-4, 3e-4, 6e-4), "steady": 0.5, "after_10": 0.0123, "updates": 90,
        "after_all": 0.456,
    },
    "missing": ("time of evaluations: no rows are held out (data.eval)",),
}  # fmt: skip


def test_every_number_has_its_unit() -> None:
    assert describe_probe(PROBE).splitlines() == [
        "probe (16 rows, 8 samples each):",
        "  right answers      11.7% of the samples; 40% of the rows at least once, 60% never, "
        "0% always (15 rows of data.train)",
        "  rewards            mean 0.5, standard deviation in a group -; 25% of the groups have "
        "no spread",
        "  completions        10.9 tokens; 74% cut at the limit",
        "  an update          3.1 s, 1,234 tokens; peak memory 2,048 MB",
        "  the run            6.2 min for 90 updates, 1.5 min of it for evaluations; "
        "111,060 tokens",
        "  KL from the start  about 0.01 nats per token after 10 updates, 0.5 after 90 "
        "(extrapolated from 3)",
        "  missing: time of evaluations: no rows are held out (data.eval)",
    ]


def test_what_is_not_known_is_left_out() -> None:
    cost = {**PROBE["cost"], "seconds_evaluation": None, "seconds": 9000.0}
    text = describe_probe({**PROBE, "right_answers": None, "cost": cost})
    assert "right answers" not in text
    assert "  the run            2.5 h for 90 updates; 111,060 tokens" in text


def test_three_risks_are_shown() -> None:
    risks = [{"name": name, "text": f"text {name}"} for name in "abcd"]
    title = "likely problems, the worst first:"
    first = [title, "1. text a", "2. text b", "3. text c"]
    assert describe_risks(risks).splitlines() == [*first, "and 1 more with --json"]
    assert describe_risks(risks[:3]).splitlines() == first

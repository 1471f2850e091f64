"""Each alarm on synthetic numbers: what must ring, and the near-misses that must stay silent."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from remote_trainer.config import parse_config
from remote_trainer.errors import UserInputError
from remote_trainer.guard import ALARMS, Finding, Guard, Levels
from remote_trainer.guard.guard import explain
from remote_trainer.guard.signals import BASELINE_LINES, WINDOW_LINES
from remote_trainer.records import RewardResult, Rollout, Sample, SampledCompletion
from remote_trainer.trainer.run_log import completion_metrics

QUIET_LINE = {
    "reward": 0.4,
    "kl": 0.05,
    "entropy": 1.5,
    "completion_tokens_mean": 10.0,
    "clipped_share": 0.2,
    "distinct_3": 0.6,
    "duplicate_share": 0.0,
    "loop_share": 0.0,
    "short_share": 0.0,
    "length_to_reference": 3.0,
    "filtered_share": 0.1,
}
QUIET_ROW = {
    "accuracy": 0.4,
    "answer_likelihood": 0.3,
    "fluency": -0.8,
    "prompt_dependence": 1.0,
    "general_logprob": -3.5,
}


def probe(duplicate_share: float | None = 0.0, **changes: float | None) -> dict[str, Any]:
    """A probe whose 32 rows all have the same values."""
    row = QUIET_ROW | changes
    return {
        **row,
        "per_row": {name: [value] * 32 for name, value in row.items()},
        "duplicate_share": duplicate_share,
    }


def severities(guard: Guard) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in guard.findings:
        found.setdefault(finding.alarm, set()).add(finding.severity)
    return found


def after_lines(**changes: Any) -> Guard:
    """A guard that saw a quiet start and then as many lines with changes."""
    guard = Guard()
    for step in range(1, BASELINE_LINES + 1):
        guard.see_update({"step": step, **QUIET_LINE})
    for step in range(BASELINE_LINES + 1, BASELINE_LINES + WINDOW_LINES + 1):
        guard.see_update({"step": step, **QUIET_LINE, **changes})
    return guard


def after_probes(*changes: dict[str, Any], rewards: tuple[float, ...] = ()) -> Guard:
    """A guard that saw a quiet first probe, then probes with changes; a reward before each."""
    guard = Guard()
    guard.see_probe(0, probe())
    for step in range(1, BASELINE_LINES + 1):
        guard.see_update({"step": step, **QUIET_LINE})
    for i, change in enumerate(changes, start=BASELINE_LINES + 1):
        if rewards:
            guard.see_update({"step": i, "reward": rewards[i - BASELINE_LINES - 1]})
        guard.see_probe(i, probe(**change))
    return guard


Case = Callable[[float], dict[str, float]]
# What a line, or a probe, holds when an alarm's value is at a level.
UPDATE_CASES: dict[str, Case] = {
    "short_share": lambda level: {"short_share": level},
    "length_to_reference": lambda level: {"length_to_reference": level},
    "length_growth": lambda level: {"completion_tokens_mean": 10 * level},
    "duplicate_share": lambda level: {"duplicate_share": level},
    "distinct_3_kept": lambda level: {"distinct_3": 0.6 * level},
    "loop_share": lambda level: {"loop_share": level},
    "clipped_rise": lambda level: {"clipped_share": 0.2 + level},
    "entropy_growth": lambda level: {"entropy": 1.5 * level},
    "entropy": lambda level: {"entropy": level},
    "kl": lambda level: {"kl": 0.05 + level},
    "filtered_share": lambda level: {"filtered_share": level},
}
PROBE_CASES: dict[str, Case] = {
    "probe_accuracy_lost": lambda level: {"accuracy": 0.4 - level},
    "probe_likelihood_lost": lambda level: {"answer_likelihood": 0.3 - level},
    "probe_fluency_lost": lambda level: {"fluency": -0.8 - level},
    "probe_duplicate_share": lambda level: {"duplicate_share": level},
    "prompt_dependence_lost": lambda level: {"prompt_dependence": 1.0 - level},
    "general_logprob_lost": lambda level: {"general_logprob": -3.5 - level},
}


def beyond(alarm: str, level: float, side: float) -> float:
    """A value just beyond (side 1) or just short of (side -1) a level."""
    sign = 1 if ALARMS[alarm].worse == "higher" else -1
    return level + sign * side * 1e-6


def test_every_alarm_has_a_case() -> None:
    assert set(UPDATE_CASES) | set(PROBE_CASES) | {"reward_up_probe_down"} == set(ALARMS)


@pytest.mark.parametrize("name", ALARMS)
def test_every_text_of_an_alarm_is_made_with_its_value(name: str) -> None:
    finding, at_start = Finding(7, name, "warn", 0.5, 0.25), ALARMS[name].at_start
    for text in [str(finding), *([at_start.format(value=0.5)] if at_start else [])]:
        assert re.search(r"50%|0\.5", text)
        assert "{" not in text


def test_what_stays_as_it_was_rings_nothing() -> None:
    assert after_lines().findings == []
    assert after_probes({}, {}, {}).findings == []


@pytest.mark.parametrize("alarm", UPDATE_CASES)
def test_alarm_of_the_batches(alarm: str) -> None:
    levels, case = ALARMS[alarm].levels, UPDATE_CASES[alarm]
    for severity, level in (("warn", levels.warn), ("stop", levels.stop)):
        if level is not None:
            rung = severities(after_lines(**case(beyond(alarm, level, 1))))
            assert severity in rung[alarm]
            missed = severities(after_lines(**case(beyond(alarm, level, -1))))
            assert severity not in missed.get(alarm, set())


@pytest.mark.parametrize("alarm", PROBE_CASES)
def test_alarm_of_the_probe(alarm: str) -> None:
    levels, case = ALARMS[alarm].levels, PROBE_CASES[alarm]
    for severity, level in (("warn", levels.warn), ("stop", levels.stop)):
        if level is not None:
            rung = severities(after_probes(case(beyond(alarm, level, 1))))
            assert severity in rung[alarm]
            missed = severities(after_probes(case(beyond(alarm, level, -1))))
            assert severity not in missed.get(alarm, set())


def test_reward_that_rises_while_the_probe_falls() -> None:
    falling = [{"answer_likelihood": 0.28 - 0.015 * i} for i in range(4)]
    guard = after_probes(*falling, rewards=(0.4, 0.5, 0.6, 0.7))
    assert severities(guard)["reward_up_probe_down"] == {"warn", "stop"}
    rising = [{"answer_likelihood": 0.31 + 0.01 * i} for i in range(4)]
    assert after_probes(*rising, rewards=(0.4, 0.5, 0.6, 0.7)).findings == []
    guard = after_probes(*falling, rewards=(0.3, 0.2, 0.1, 0.0))
    assert "reward_up_probe_down" not in severities(guard)


def test_a_run_that_began_before_a_number_was_measured_is_not_judged_by_it() -> None:
    guard, first = Guard(), probe()
    del first["per_row"]["general_logprob"]
    guard.see_probe(0, first)
    guard.see_probe(5, probe(general_logprob=-9.0))
    assert guard.findings == []


def test_rows_that_change_by_chance_are_no_loss() -> None:
    """Five rows of 32 went wrong and four came right: one fewer, and nothing to stop for."""
    guard = Guard()
    right = [1.0] * 16 + [0.0] * 16
    now = [0.0] * 5 + [1.0] * 11 + [1.0] * 4 + [0.0] * 12
    start, later = probe(), probe()
    start["per_row"]["accuracy"], later["per_row"]["accuracy"] = right, now
    guard.see_probe(0, start)
    guard.see_probe(20, later)
    assert guard.findings == []


def test_nothing_stops_before_the_baseline_is_complete() -> None:
    guard = Guard()
    guard.see_probe(0, probe())
    guard.see_probe(1, probe(accuracy=0.0))
    assert severities(guard) == {"probe_accuracy_lost": {"warn"}}
    assert guard.stop is None


def rollout(completions: list[str], answers: list[str | None], prompts: list[str]) -> Rollout:
    """Completions whose tokens are their words."""
    judged = []
    for prompt, text, answer in zip(prompts, completions, answers, strict=True):
        ids = tuple(range(len(text.split()) + 1))
        completion = SampledCompletion(
            sample=Sample(prompt, (9,), prompt, ids, ids[:-1], text),
            answer=answer,
            reference_tokens=None if answer is None else len(answer.split()),
            result=RewardResult(1.0, {"r": 1.0}),
            in_loss=True,
        )
        judged.append(completion)
    return Rollout(step=1, completions=judged, groups_filtered=0.0, scores_from={})


def told(completions: list[str], answers: list[str | None], prompts: list[str]) -> Guard:
    """A guard that saw sentences first and then only these completions."""
    guard = Guard()
    sentences = [f"the answer to question {i} is of course {a}" for i, a in enumerate(answers)]
    for step in range(1, 11):
        texts = sentences if step <= BASELINE_LINES else completions
        line = completion_metrics(rollout(texts, answers, prompts))
        guard.see_update({**QUIET_LINE, **line, "step": step})
    return guard


def test_right_one_word_answers_are_no_collapse() -> None:
    cities = [f"City{i}" for i in range(16)]
    prompts = [f"capital of country {i}?" for i in range(16)]
    guard = told(cities, list(cities), prompts)
    assert guard.findings == []


def test_the_same_right_answer_to_many_prompts_is_no_collapse() -> None:
    sums = [f"what is {i} + {5 - i}?" for i in range(6)] * 3
    guard = told(["5"] * 18, ["5"] * 18, sums)
    assert guard.findings == []


def test_one_answer_for_everything_is_a_collapse() -> None:
    answers = [f"City{i}" for i in range(16)]
    guard = told(["Paris"] * 16, list(answers), [f"capital {i}?" for i in range(16)])
    assert severities(guard) == {"duplicate_share": {"warn", "stop"}}


def test_without_references_the_same_text_for_other_prompts_is_a_duplicate() -> None:
    guard = told(["I do not know that"] * 16, [None] * 16, [f"question {i}?" for i in range(16)])
    assert severities(guard) == {"duplicate_share": {"warn", "stop"}}


def test_empty_completions_are_a_collapse() -> None:
    answers = [f"New City{i}" for i in range(16)]
    guard = told([""] * 16, list(answers), [f"capital {i}?" for i in range(16)])
    found = severities(guard)
    assert "stop" in found["short_share"]
    assert "stop" in found["length_to_reference"]


def test_relative_signals_wait_for_their_baseline() -> None:
    guard = Guard()
    for step in range(1, BASELINE_LINES + 1):
        guard.see_update({"step": step, **QUIET_LINE, "entropy": 3.0 * step})
    assert guard.findings == []


def test_a_single_bad_update_is_averaged_away() -> None:
    guard = after_lines()
    for step in range(11, 16):
        bad = {"short_share": 0.75} if step == 11 else {}
        guard.see_update({"step": step, **QUIET_LINE, **bad})
    assert guard.findings == []


def test_missing_numbers_ring_nothing() -> None:
    guard = after_lines(**dict.fromkeys(QUIET_LINE))
    assert guard.findings == []
    nothing = dict.fromkeys([*QUIET_ROW, "duplicate_share"])
    guard = Guard()
    guard.see_probe(0, probe(**nothing))
    guard.see_probe(1, probe(**nothing))
    assert guard.findings == []


def test_the_same_numbers_again_give_the_same_findings_after_a_restart() -> None:
    lines = [{"step": s, **QUIET_LINE, "kl": 0.1 * s} for s in range(1, 21)]
    whole, first = Guard(), Guard()
    for line in lines[:12]:
        first.see_update(line)
    first.see_probe(12, probe())
    second = Guard()
    second.restore(json.loads(json.dumps(first.state())))
    for line in lines[12:]:
        second.see_update(line)
    for line in lines[:12]:
        whole.see_update(line)
    whole.see_probe(12, probe())
    for line in lines[12:]:
        whole.see_update(line)
    assert whole.findings == second.findings
    assert whole.state() == second.state()


def test_the_paragraph_names_what_since_when_and_what_to_change() -> None:
    guard = after_probes({"accuracy": 0.3}, {"accuracy": 0.1})
    text = explain(guard.findings, kept_step=0, step=7)
    assert "fell by at least 0.30" in text
    assert f"first warning after update {BASELINE_LINES + 1}" in text
    assert "as it was before training" in text
    assert all(advice in text for advice in ALARMS["probe_accuracy_lost"].advice)


def test_the_same_advice_is_given_once() -> None:
    guard = after_probes({"accuracy": 0.1, "fluency": -5.0})
    text = explain(guard.findings, kept_step=0, step=7)
    assert "nats per token" in text
    assert [text.count(s) for s in ("Choose another", "Raise training.beta", "Lower ")] == [1] * 3


def test_kl_needs_most_of_the_window() -> None:
    """Its estimate has heavy tails, and updates without a group that teaches have none."""
    assert "kl" not in severities(after_lines(kl=2.9))
    for known, rings in ((2, False), (3, True)):
        guard = Guard()
        for step in range(1, 11):
            kl = 50.0 if step > 10 - known else None if step > 5 else 0.1
            guard.see_update({"step": step, **QUIET_LINE, "kl": kl})
        assert ("kl" in severities(guard)) == rings


def levels_of(guard: str) -> dict[str, Levels]:
    text = f"data: {{train: x}}\nguard: {guard}\n"
    return parse_config(text, "c").guard.active_levels()


def test_levels_can_be_changed_one_by_one() -> None:
    default = ALARMS["kl"].levels
    assert levels_of("{}")["kl"] == default
    assert levels_of("{levels: {kl: {stop: 9}}}")["kl"] == Levels(default.warn, 9)
    assert levels_of("{levels: {kl: {warn: null, stop: null}}}")["kl"] == Levels(None, None)
    assert set(levels_of("{action: 'off'}").values()) == {Levels(None, None)}


def test_an_unknown_alarm_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserInputError, match=r"no such key; did you mean 'entropy'"):
        levels_of("{levels: {entropi: {stop: 9}}}")


# What each alarm of a level would have said from the start of a model that was so before training.
ALREADY: dict[str, float] = {
    "short_share": 0.9,
    "length_to_reference": 0.2,
    "completion_tokens_mean": 2.0,
    "duplicate_share": 0.8,
    "loop_share": 0.5,
    "entropy": 0.015,
    "kl": 4.0,
    "filtered_share": 0.9,
    "clipped_share": 1.0,
    "distinct_3": 0.05,
}


def base_like(now: dict[str, Any], first: float = 0.83, later: float = 0.83) -> Guard:
    """A guard whose model was `ALREADY` so in its first updates, then ``now``."""
    guard = Guard()
    guard.see_probe(0, probe(duplicate_share=first))
    for step in range(1, 11):
        change = now if step > BASELINE_LINES else {}
        guard.see_update({"step": step, **QUIET_LINE, **ALREADY, **change})
    guard.see_probe(10, probe(duplicate_share=later))
    return guard


def test_a_model_that_was_so_before_training_rings_nothing() -> None:
    assert base_like({}).findings == []
    # A little more of it by chance, or a little less.
    chance = {"duplicate_share": 0.88, "short_share": 1.0, "loop_share": 0.54, "entropy": 0.012}
    assert base_like(chance, later=0.9).findings == []
    grown = {"completion_tokens_mean": 12.0, "entropy": 0.25}
    assert base_like(grown, later=0.0).findings == []


def test_what_training_adds_to_it_rings_by_the_same_levels() -> None:
    rung = severities(base_like({"loop_share": 0.5 + 0.21}))
    assert rung == {"loop_share": {"warn", "stop"}}
    # 0.2 nats stand for what it began with: a tenth of that is 0.02, the stop level
    rung = severities(base_like({"entropy": 0.0014}))
    assert rung == {"entropy": {"warn", "stop"}}
    rung = severities(base_like({"length_to_reference": 0.2 * 0.29}))
    assert rung == {"length_to_reference": {"warn", "stop"}}
    rung = severities(base_like({"kl": 7.1}))
    assert rung == {"kl": {"warn"}}
    rung = severities(base_like({}, first=0.5, later=0.91))
    assert rung == {"probe_duplicate_share": {"stop"}}


def test_a_start_without_harm_is_judged_as_ever() -> None:
    """Half of the groups without signal, references met in length: nothing is taken off."""
    guard = Guard()
    for step in range(1, 11):
        late = step > BASELINE_LINES
        change = {
            "filtered_share": 0.76 if late else 0.5,
            "length_to_reference": 0.29 if late else 1.0,
        }
        guard.see_update({"step": step, **QUIET_LINE, **change})
    assert severities(guard) == {
        "filtered_share": {"warn"}, "length_to_reference": {"warn", "stop"},
    }  # fmt: skip


def test_what_was_so_before_training_is_said_with_its_own_remedy() -> None:
    guard = Guard()
    assert guard.before_training == []
    guard.see_probe(0, probe(duplicate_share=0.83))
    [first] = guard.before_training
    assert first.startswith("before training 83% of the probe's rows got the same answer")
    assert "better base model" in first
    assert "data.system_prompt" in first
    for step in range(1, BASELINE_LINES + 1):
        guard.see_update({"step": step, **QUIET_LINE, **ALREADY})
    sentences = guard.before_training
    assert sentences[0] == first
    starts = [
        "90% of the completions are shorter",
        "completions have 0.20 times",
        "50% of the completions repeat",
        "token entropy is 0.015 nats",
        "90% of the groups have no signal",
    ]
    for sentence, start in zip(sentences[1:], starts, strict=True):
        assert sentence.startswith(f"in the first updates {start}")
    again = Guard()
    again.restore(json.loads(json.dumps(guard.state())))
    assert again.before_training == sentences
    text = explain([], 0, 7, sentences)
    assert text.endswith(" ".join(sentences))
    quiet = Guard()
    quiet.see_probe(0, probe())
    for step in range(1, BASELINE_LINES + 1):
        quiet.see_update({"step": step, **QUIET_LINE})
    assert quiet.before_training == []

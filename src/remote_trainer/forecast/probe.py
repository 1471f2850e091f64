"""Load the model as training would, sample, do a few updates, and say what follows."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from remote_trainer.checks.model_check import settle
from remote_trainer.config import RunConfig
from remote_trainer.data import EncodedData, encode_data
from remote_trainer.engines.determinism import deterministic_kernels
from remote_trainer.engines.protocol import Backend
from remote_trainer.evaluation import length_limit, some_of
from remote_trainer.evaluation.probe import probe_places
from remote_trainer.forecast.cost import HeldOut, Pace, cost_of, guard_probes
from remote_trainer.forecast.figures import Divergence, Probe, Rewards, RightAnswers
from remote_trainer.forecast.first_samples import (
    SAMPLES,
    Drawn,
    completions_of,
    draw,
    places_for,
    rewards_of,
    right_answers,
)
from remote_trainer.forecast.first_updates import probe_updates, probed_updates, rows_needed
from remote_trainer.forecast.growth import fit, movement
from remote_trainer.forecast.schedule import relative_rates
from remote_trainer.models.model_facts import ModelFacts
from remote_trainer.pipeline.backend import (
    adapter_settings,
    engine_of,
    load_trainable,
    with_auto_resolved,
)
from remote_trainer.pipeline.extras import TO_TRAIN, require_packages
from remote_trainer.pipeline.initial_adapter import apply, find_start, with_start
from remote_trainer.pipeline.train import plan_with_model
from remote_trainer.planning.length import updates_of
from remote_trainer.progress import SILENT, ProgressCallbacks
from remote_trainer.records import RewardResult, ScoreRequest
from remote_trainer.rewards import RewardFunction


@dataclass(frozen=True)
class _Ready:
    """A loaded model with a new adapter, and rows with prompt ids."""

    backend: Backend
    config: RunConfig
    data: EncodedData
    vllm: bool


def probe(config: RunConfig, watch: ProgressCallbacks = SILENT) -> Probe:
    """Measure what `Probe` holds; downloads the model if it is not on this machine.

    Writes nothing but temporary files. Raises UserInputError as `check_config` does.
    """
    require_packages("check --probe", TO_TRAIN)
    with deterministic_kernels(config.training.deterministic):
        return _measure(_load(config, watch), watch)


def _load(config: RunConfig, watch: ProgressCallbacks) -> _Ready:
    """As `pipeline.train` does it."""
    plan = plan_with_model(config, watch, any_version=False)
    assert plan.base is not None, "it was downloaded, or an error was raised"
    config = plan.data.train_source.guess.apply(config)
    choice = engine_of(config)
    start = find_start(config, plan.base)
    config = settle(config, ModelFacts(plan.base))
    config = with_auto_resolved(with_start(config, start), choice)
    watch.stage(f"loading {config.model.name}")
    backend = load_trainable(plan.base, config, choice)
    data = encode_data(plan.data, backend.prompt_tokenizer, config)
    apply(backend, config, start)
    if start is None:
        backend.add_adapter(adapter_settings(config))
    return _Ready(backend, config, data, choice.generation == "vllm")


def _measure(ready: _Ready, watch: ProgressCallbacks) -> Probe:
    """Sample, then train: afterwards the adapter is another one."""
    backend, config = ready.backend, ready.config
    updates = updates_of(config, len(ready.data.train))
    reward = RewardFunction(backend, config.reward, config.training.max_completion_length, updates)
    pool = some_of(ready.data.train)
    sampled, trained = places_for(len(pool), rows_needed(config), config.training.seed)
    watch.stage(f"sampling {SAMPLES} completions of {len(sampled)} rows")
    drawn = draw(backend, reward, [pool[place] for place in sampled], config)
    right = right_answers(backend, reward, config, pool, sampled, drawn, ready.data.eval)
    pace, results = _pace(backend, reward, drawn)
    rewards = rewards_of(results, config.training.group_filter.min_std)
    held_out = _held_out(ready, drawn, updates)
    watch.stage(f"probing {probed_updates(config)} updates")
    rows = [pool[place] for place in trained]
    done = probe_updates(backend, reward, rows, drawn.samples, config, ready.vllm, watch)
    prompt_tokens = fmean(len(row.prompt_ids) for row in rows)
    return Probe(
        rows=len(sampled),
        samples=SAMPLES,
        right_answers=right,
        rewards=rewards,
        completions=completions_of(drawn),
        cost=cost_of(done.lines, config, prompt_tokens, updates, held_out, pace),
        divergence=divergence_of(config, done.divergences, rewards, updates),
        missing=tuple(_missing(config, right, held_out)),
    )


def _pace(
    backend: Backend, reward: RewardFunction, drawn: Drawn
) -> tuple[Pace, Sequence[RewardResult]]:
    """How fast completions are sampled, judged and scored; and what the rewards say."""
    asked = [ScoreRequest.of(each.prompt_ids, each.completion_ids) for each in drawn.samples]
    begun = time.perf_counter()
    results = reward.judge(drawn.samples)
    judged = time.perf_counter()
    backend.score(asked)
    scored = time.perf_counter()
    count = len(asked)
    token = drawn.seconds / sum(drawn.tokens)
    return Pace(token, (judged - begun) / count, (scored - judged) / count), results


def _held_out(ready: _Ready, drawn: Drawn, updates: int) -> HeldOut:
    """What the evaluations ask; the guard takes training rows where none are held out."""
    config, rows = ready.config, ready.data.eval
    guarded = rows or some_of(ready.data.train)
    most = config.evaluation.max_completion_length
    limit = length_limit(guarded, config.answer_field, ready.backend, most)
    return HeldOut(
        rows=len(rows),
        samples=config.evaluation.samples,
        tokens=fmean(min(length, limit) for length in drawn.tokens),
        guard_rows=len(probe_places(guarded)),
        guard_probes=guard_probes(config, updates),
    )


def divergence_of(
    config: RunConfig, measured: Sequence[float], rewards: Rewards, updates: int
) -> Divergence:
    """Extrapolate what was measured after 1, 2, ... updates.

    An update without a group that has spread changes nothing, so such updates are left out of
    the movement: their share is that of groups without spread to the power of groups per update.
    """
    active = 1.0 - rewards.groups_without_spread**config.training.prompts_per_update
    growth = fit(measured)
    rates = relative_rates(config, updates)
    return Divergence(
        measured=tuple(measured),
        steady=growth.steady,
        after_10=growth.after(movement(some_of_rates([1.0] * 10, active))),
        updates=updates,
        after_all=growth.after(movement(some_of_rates(rates, active))),
    )


def some_of_rates(rates: Iterable[float], share: float) -> Iterator[float]:
    """An evenly spaced share of the updates."""
    return (rate for i, rate in enumerate(rates) if int((i + 1) * share) > int(i * share))


def _missing(config: RunConfig, right: RightAnswers | None, held_out: HeldOut) -> Iterator[str]:
    """What could not be measured, and why."""
    if right is None:
        yield f"share of right answers: no row has a reference answer in {config.answer_field!r}"
    if not held_out.rows:
        yield "time of evaluations: no rows are held out (data.eval)"

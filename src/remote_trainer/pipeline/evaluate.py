"""Answer held-out rows and measure the answers: before and after a run, or alone."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig, load_resolved, parse_config
from remote_trainer.data.encode import encode_rows
from remote_trainer.data.load import load_eval_rows
from remote_trainer.engines.protocol import Backend
from remote_trainer.environment import describe_environment, numeric_state
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.evaluation import (
    Answers,
    Measured,
    collect_answers,
    compare,
    length_limit,
    measure,
    not_measured,
    with_cut_share,
)
from remote_trainer.evaluation.cache import cached_answers
from remote_trainer.evaluation.metrics import VERDICT_METRIC
from remote_trainer.evaluation.side_by_side import side_by_side
from remote_trainer.faults import fault_point
from remote_trainer.models.fast_path import attention_of
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.pipeline.base_model import base_of
from remote_trainer.pipeline.extras import TO_LOAD, require_packages
from remote_trainer.pipeline.initial_adapter import InitialAdapter, apply, find_start, with_start
from remote_trainer.progress import SILENT, ProgressCallbacks
from remote_trainer.records import EncodedRow, Row, Sampling
from remote_trainer.rewards import LogprobCache, RewardConfig, RewardFunction
from remote_trainer.run_dir import RunDir, write_json, write_jsonl
from remote_trainer.tokenization.light_tokenizer import light_codec
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer


def evaluate_model(
    target: str,
    data_file: Path,
    base: bool,
    against: str | None,
    overrides: Sequence[str] = (),
    watch: ProgressCallbacks = SILENT,
) -> dict[str, Any]:
    """Content of eval.json for a run folder or model; ``before`` is the base or another model."""
    require_packages("eval", TO_LOAD)
    config = config_of(target, overrides)
    after = _measure_model(target, config, data_file, adapter=True, watch=watch)
    before = None
    if base:
        before = _measure_model(target, config, data_file, adapter=False, watch=watch)
    elif against is not None:
        before = _measure_model(against, _config_against(against, config), data_file, True, watch)
    if before is None:
        return {"after": after.metrics}
    there, here = before.metrics["rows"], after.metrics["rows"]
    if there != here:
        raise UserInputError.at(
            "--against",
            f"{against} was evaluated on {there} rows and {target} on {here}, because prompts over "
            "training.max_prompt_length are dropped, so they cannot be compared. Use a model with "
            "an equal or higher limit",
        )
    verdict = with_cut_share(compare(before.per_row, after.per_row), before, after)
    return {"after": after.metrics, "before": before.metrics, "verdict": verdict}


def config_of(target: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a run folder, or one for a bare model."""
    folder = RunDir(target)
    if folder.started:
        return load_resolved(folder.resolved_config, overrides)
    text = {
        "model": {"name": target},
        "data": {"train": "-"},
        "evaluation": {"limit_from": "references"},  # nothing was trained
    }
    return parse_config(json.dumps(text), target, overrides)


def _config_against(other: str, config: RunConfig) -> RunConfig:
    """Another run has its own settings; a plain model uses those of the first side."""
    if RunDir(other).started:
        return config_of(other)
    model = config.model.model_copy(update={"name": other, "revision": None, "adapter": None})
    return config.model_copy(update={"model": model})


def _measure_model(
    target: str, config: RunConfig, data_file: Path, adapter: bool, watch: ProgressCallbacks
) -> Measured:
    rows, found = load_eval_rows(data_file, config)
    config = found.guess.apply(config)
    if found.guess.note is not None:
        watch.stage(found.guess.note)
    rows = rows[: config.evaluation.rows]
    folder = RunDir(target)
    model_folder = base_of(folder, config, watch)
    start = None if folder.started or not adapter else find_start(config, model_folder)
    config = with_start(config, start)
    if light := light_codec(model_folder, config.with_data().chat_template_kwargs):
        _encoded(
            rows, light, config
        )  # report prompts that cannot be rendered before loading the model
    watch.stage(f"loading {config.model.name}")
    backend = load_backend(model_folder, config)
    apply(backend, config, start)
    if folder.started and adapter:
        if not folder.adapter.exists():
            raise UserInputError.at(target, "the run has no adapter yet; finish it with `train`")
        backend.load_adapter(folder.adapter)
    encoded = _encoded(rows, backend.prompt_tokenizer, config)
    watch.stage(f"answering {len(encoded)} rows")
    answers = _collect(backend, encoded, config, watch)
    # A plain model was not trained with a reward.
    return _measure(backend, encoded, answers, config, config.reward if folder.started else [])


def _encoded(
    rows: Sequence[Row], prompt_tokenizer: PromptTokenizer, config: RunConfig
) -> Sequence[EncodedRow]:
    """Rows with prompt ids; raises UserInputError for those that cannot be rendered."""
    problems: list[Problem] = []
    encoded, _ = encode_rows(rows, prompt_tokenizer, config, problems)
    if problems:
        raise UserInputError(problems)
    return encoded


def measure_before(
    backend: Backend,
    model_folder: Path,
    rows: Sequence[EncodedRow],
    config: RunConfig,
    watch: ProgressCallbacks,
    start: InitialAdapter | None = None,
) -> Measured | None:
    """Evaluate the model before training (with the adapter ``start``, if there is one) on the
    held-out rows; uses cached answers."""
    if not rows:
        return None
    watch.stage(f"answering {len(rows)} held-out rows before training")
    fault_point("evaluation:before")
    settings = _settings(backend, config, start)
    answers = cached_answers(
        model_folder, rows, settings, lambda: _collect(backend, rows, config, watch)
    )
    return _measure(backend, rows, answers, config, config.reward)


def _settings(backend: Backend, config: RunConfig, start: InitialAdapter | None) -> dict[str, Any]:
    """The cache key next to model and rows: everything that the answers before training depend
    on, such as engine, quantisation and kernels."""
    model_config = getattr(backend.model, "config", None)
    return {
        # Fast paths change answers only within rounding.
        "engine": {k: v for k, v in backend.describe().items() if k not in ("ways", "fast_path")},
        "attention": attention_of(model_config),
        "dtype": config.model.dtype,
        "max_seq_length": config.model.max_seq_length,
        "remote_code": config.model.trust_remote_code,
        "tokens_per_batch": config.scoring.max_tokens_per_batch,
        "samples": config.evaluation.samples,
        "limit": config.answer_lengths(),
        "answer_field": config.answer_field,
        "versions": describe_environment() | numeric_state(),
        "adapter": f"{start.sha256} {start.alpha}" if start else None,
    }


def write_eval(
    backend: Backend,
    rows: Sequence[EncodedRow],
    before: Measured | None,
    config: RunConfig,
    folder: RunDir,
    watch: ProgressCallbacks,
    chosen_by: Collection[str] = (),
) -> None:
    """Evaluate the trained model on the same rows; write answers.jsonl with the answers of both
    sides, and eval.json with their numbers and the verdict.

    Rows that were used to select the adapter (``chosen_by``: ``file:line``) are excluded from the
    verdict.
    """
    result: dict[str, Any] = {"rows": len(rows), "before": None, "after": None}
    if before is None:
        result["verdict"] = not_measured("Not measured: no rows were held out (data.eval).")
    else:
        watch.stage(f"answering {len(rows)} held-out rows after training")
        fault_point("evaluation:after")
        answers = _collect(backend, rows, config, watch)
        after = _measure(backend, rows, answers, config, config.reward)
        kept = [i for i, row in enumerate(rows) if row.row.source not in chosen_by]
        of_chosen = _only(after.per_row, [i for i in range(len(rows)) if i not in kept])
        set_aside = sum(value is not None for value in of_chosen[VERDICT_METRIC])
        verdict = compare(_only(before.per_row, kept), _only(after.per_row, kept), set_aside)
        verdict = with_cut_share(verdict, before, after)
        result |= {"before": before.metrics, "after": after.metrics, "verdict": verdict}
        write_jsonl(folder.answers, side_by_side(rows, config.answer_field, before, after))
    write_json(folder.eval, result)


def _only(
    per_row: Mapping[str, list[float | None]], places: Sequence[int]
) -> dict[str, list[float | None]]:
    return {name: [values[i] for i in places] for name, values in per_row.items()}


def _collect(
    backend: Backend, rows: Sequence[EncodedRow], config: RunConfig, watch: ProgressCallbacks
) -> Answers:
    limit = length_limit(rows, config.answer_field, backend, *config.answer_lengths())
    samples = config.evaluation.samples
    return collect_answers(backend, rows, config.answer_field, samples, limit, watch.progress)


def _measure(
    backend: Backend,
    rows: Sequence[EncodedRow],
    answers: Answers,
    config: RunConfig,
    rewards: Sequence[RewardConfig],
) -> Measured:
    values = _judge(backend, rows, answers, rewards, config) if rewards else None
    return measure(rows, answers, backend.prompt_tokenizer, config.answer_field, values)


def _judge(
    backend: Backend,
    rows: Sequence[EncodedRow],
    answers: Answers,
    rewards: Sequence[RewardConfig],
    config: RunConfig,
) -> list[list[float | None]]:
    """Reward of every sampled answer, one list per row; reuses the log-probs of sampling."""
    updates = config.training.max_steps or 1
    reward = RewardFunction(backend, rewards, answers.max_new_tokens, updates)
    samples = [
        reward.sample(row, drawn.ids)
        for row, draws in zip(rows, answers.sampled, strict=True)
        for drawn in draws
    ]
    cache = LogprobCache()
    if (
        backend.samples_as_it_scores(Sampling(answers.max_new_tokens))
        and config.scoring.reuse != "never"
    ):
        drawn = [answer for draws in answers.sampled for answer in draws]
        for sample, generation in zip(samples, drawn, strict=True):
            cache.add_completion("sampling", sample, "policy", generation.logprobs)
    reward_results = iter(reward.judge(samples, cache))
    return [[next(reward_results).reward for _ in draws] for draws in answers.sampled]

"""Compute rewards of given completions, without training."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from remote_trainer.config import RunConfig
from remote_trainer.data import load_score_rows
from remote_trainer.data.encoded_rows import rendered
from remote_trainer.data.load import ScoreRow
from remote_trainer.data.refusals import unrendered
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.models.resolve import resolve_model
from remote_trainer.paths import why_no_file
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.pipeline.check import column_problems, reward_problems
from remote_trainer.pipeline.extras import TO_LOAD, require_packages
from remote_trainer.pipeline.initial_adapter import apply, find_start, with_start
from remote_trainer.progress import SILENT, ProgressCallbacks
from remote_trainer.records import Row
from remote_trainer.rewards import RewardFunction
from remote_trainer.rewards.function_log import FunctionLog
from remote_trainer.run_dir import write_text
from remote_trainer.tokenization.light_tokenizer import light_codec
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer


def score_file(
    config: RunConfig, source: Path, target: Path, watch: ProgressCallbacks = SILENT
) -> int:
    """Write each row of ``source`` with ``reward`` and ``rewards`` to ``target``; returns the
    number of rows."""
    require_packages("score", TO_LOAD)
    given, guess = load_score_rows(source, config)
    config = guess.apply(config)
    if guess.note is not None:
        watch.stage(guess.note)
    problems = [
        *reward_problems(config),
        *column_problems(config, [each.row for each in given]),
        *_target_problems(source, target),
    ]
    if problems:
        raise UserInputError(problems)
    model_folder = resolve_model(config.model.name, config.model.revision)
    start = find_start(config, model_folder)
    config = with_start(config, start)
    if light := light_codec(model_folder, config.data.chat_template_kwargs if config.data else {}):
        _rendered(
            given, light, config
        )  # report prompts that cannot be rendered before loading the model
    watch.stage(f"loading {config.model.name}")
    backend = load_backend(model_folder, config)
    apply(backend, config, start)
    reward = RewardFunction(backend, config.reward, updates=config.training.max_steps or 1)
    log = FunctionLog()
    rows = _rendered(given, backend.prompt_tokenizer, config)
    watch.stage(f"scoring {len(rows)} rows")
    samples = reward.samples(rows, [each.completion for each in given])
    reward_results = reward.judge(samples, on_progress=watch.progress, log=log)
    lines = [
        {
            **each.given,
            "reward": reward_result.reward,
            "rewards": dict(reward_result.rewards),
            **({"logged": logged} if logged else {}),
        }
        for each, reward_result, logged in zip(
            given, reward_results, log.rows(len(rows)), strict=True
        )
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(target, text)
    return len(lines)


def _target_problems(source: Path, target: Path) -> list[Problem]:
    if os.path.exists(target) and os.path.exists(source) and source.samefile(target):
        return [Problem("--output", f"{target} is also the input; write another file")]
    why = why_no_file(target)
    return [Problem("--output", f"{target}: {why}")] if why else []


def _rendered(
    given: Sequence[ScoreRow], prompt_tokenizer: PromptTokenizer, config: RunConfig
) -> list[Row]:
    """Rows with rendered prompts; raises UserInputError for those that cannot be rendered."""
    system_prompt = config.data.system_prompt if config.data else None
    rows = [rendered(each.row, prompt_tokenizer, system_prompt) for each in given]
    problems = unrendered(
        [each.row for each in given], [row.prompt for row in rows], prompt_tokenizer, system_prompt
    )
    if problems:
        raise UserInputError(problems)
    return rows

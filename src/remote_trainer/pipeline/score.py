"""Judge given completions; nothing is trained."""

import json
import os
from pathlib import Path

from remote_trainer.config import RunConfig
from remote_trainer.data import load_score_rows
from remote_trainer.data.encode import as_messages
from remote_trainer.engine.resolve import resolve_model
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.paths import why_no_file
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.pipeline.check import reward_problems
from remote_trainer.pipeline.extras import TO_LOAD, require_packages
from remote_trainer.pipeline.start_adapter import find_start, put_on, with_start
from remote_trainer.pipeline.watcher import SILENT, Watcher
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import write_text


def score_file(config: RunConfig, source: Path, target: Path, watch: Watcher = SILENT) -> int:
    """Write each row of ``source`` with its ``reward`` and ``rewards`` to ``target``; the count."""
    require_packages("score", TO_LOAD)
    rows = load_score_rows(source, config)
    problems = [*reward_problems(config), *_target_problems(source, target)]
    if problems:
        raise UserInputError(problems)
    model_folder = resolve_model(config.model.name, config.model.revision)
    start = find_start(config, model_folder)
    config = with_start(config, start)
    watch.stage(f"loading {config.model.name}")
    backend = load_backend(model_folder, config)
    put_on(backend, config, start)
    reward = RewardFunction(backend, config.reward)
    system_prompt = config.data.system_prompt if config.data else None
    prompts = [as_messages(row.prompt, backend.codec, system_prompt) for row, _ in rows]
    watch.stage(f"judging {len(rows)} rows")
    samples = reward.samples(
        prompts,
        [text for _, text in rows],
        [row.fields for row, _ in rows],
        [row.source for row, _ in rows],
    )
    judgements = reward.judge(samples, on_progress=watch.progress)
    lines = [
        {
            "prompt": row.prompt,
            "completion": text,
            **row.fields,
            "reward": judgement.reward,
            "rewards": dict(judgement.rewards),
        }
        for (row, text), judgement in zip(rows, judgements, strict=True)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(target, text)
    return len(lines)


def _target_problems(source: Path, target: Path) -> list[Problem]:
    if os.path.exists(target) and source.samefile(target):
        return [Problem("--output", f"{target} is the input; write another file")]
    why = why_no_file(target)
    return [Problem("--output", f"{target}: {why}")] if why else []

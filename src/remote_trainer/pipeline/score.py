"""Judge given completions; nothing is trained."""

import json
from pathlib import Path

from remote_trainer.config import RunConfig
from remote_trainer.data import load_score_rows
from remote_trainer.data.encode import as_messages
from remote_trainer.engine.resolve import resolve_model
from remote_trainer.errors import UserInputError
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.pipeline.check import column_problems, reward_problems
from remote_trainer.pipeline.start_adapter import find_start, put_on, with_start
from remote_trainer.pipeline.watcher import SILENT, Watcher
from remote_trainer.rewards import RewardFunction
from remote_trainer.rewards.function_log import FunctionLog
from remote_trainer.run_dir import write_text


def score_file(config: RunConfig, source: Path, target: Path, watch: Watcher = SILENT) -> int:
    """Write each row of ``source`` with its ``reward`` and ``rewards`` to ``target``; the count."""
    rows = load_score_rows(source, config)
    problems = [*reward_problems(config), *column_problems(config, [row for row, _ in rows])]
    if problems:
        raise UserInputError(problems)
    model_folder = resolve_model(config.model.name, config.model.revision)
    start = find_start(config, model_folder)
    config = with_start(config, start)
    watch.stage(f"loading {config.model.name}")
    backend = load_backend(model_folder, config)
    put_on(backend, config, start)
    reward = RewardFunction(backend, config.reward, updates=config.training.max_steps or 1)
    log = FunctionLog()
    system_prompt = config.data.system_prompt if config.data else None
    prompts = [as_messages(row.prompt, backend.codec, system_prompt) for row, _ in rows]
    watch.stage(f"judging {len(rows)} rows")
    samples = reward.samples(
        prompts,
        [text for _, text in rows],
        [row.fields for row, _ in rows],
        [row.source for row, _ in rows],
    )
    judgements = reward.judge(samples, on_progress=watch.progress, log=log)
    lines = [
        {
            "prompt": row.prompt,
            "completion": text,
            **row.fields,
            "reward": judgement.reward,
            "rewards": dict(judgement.rewards),
            **({"logged": logged} if logged else {}),
        }
        for (row, text), judgement, logged in zip(
            rows, judgements, log.rows(len(rows)), strict=True
        )
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(target, text)
    return len(lines)

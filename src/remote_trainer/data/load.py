"""Data files -> rows for training and for evaluation, or every problem at once."""

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.data.jsonl import read_objects, shorten
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.records import Message, Prompt, Row

# TRL overwrites or never delivers columns of these names; the last two are our own.
RESERVED = frozenset(
    {"completion", "completion_ids", "completions", "prompts", "trainer_state", "log_extra"}
    | {"log_metric", "environments", "prompt_ids"}
)
HELD_OUT_SHARE, HELD_OUT_LEAST, HELD_OUT_MOST = 0.1, 20, 200


@dataclass(frozen=True)
class Source:
    """One file as it was read: which rows were kept, which were left out and why."""

    file: str
    sha256: str
    read: int
    left_out: Mapping[str, list[str]]
    """Reason -> ``file:line`` of the rows."""


@dataclass(frozen=True)
class Dataset:
    """Rows to train on and rows that are held out (none when evaluation is off)."""

    train: list[Row]
    eval: list[Row]
    train_source: Source
    eval_source: Source | None

    @property
    def sha256(self) -> str:
        """Identity of all data of a run."""
        parts = [self.train_source.sha256, self.eval_source.sha256 if self.eval_source else ""]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def load_data(config: RunConfig) -> Dataset:
    """Read, check and split the files of a config.

    Raises UserInputError that lists every bad line, and settings the rows cannot satisfy.
    """
    settings = config.with_data()
    problems: list[Problem] = []
    needed_fields = {reward.answer_field for reward in config.reward if reward.needs_answer}
    train, train_source = _load_file(Path(settings.train), config, needed_fields, problems)
    evaluate: list[Row] = []
    eval_source: Source | None = None
    if settings.eval == "auto":
        train, evaluate = hold_out(train, config.training.seed)
        eval_source = train_source
    elif settings.eval != "none":
        evaluate, eval_source = _load_eval_file(Path(settings.eval), config, problems)
    evaluate = evaluate[: config.evaluation.rows]
    needed = config.training.prompts_per_update
    if not problems and len(train) < needed:
        problems.append(
            Problem(
                settings.train,
                f"{len(train)} usable rows are fewer than the {needed} prompts of one update "
                "(training.per_device_train_batch_size x training.gradient_accumulation_steps); "
                "lower those or add rows",
            )
        )
    if problems:
        raise UserInputError(problems)
    return Dataset(train, evaluate, train_source, eval_source)


def load_eval_rows(path: Path, config: RunConfig) -> tuple[list[Row], Source]:
    """Rows of one file for an evaluation of its own; raises UserInputError."""
    problems: list[Problem] = []
    rows, source = _load_eval_file(path, config, problems)
    if problems:
        raise UserInputError(problems)
    return rows, source


def load_score_rows(path: Path, config: RunConfig) -> list[tuple[Row, str]]:
    """(row, completion) pairs to judge; raises UserInputError that lists every bad line."""
    problems: list[Problem] = []
    answer_fields = {reward.answer_field for reward in config.reward if reward.needs_answer}
    rows = []
    for number, value in read_objects(path, problems):
        where = f"{path}:{number}"
        completion = value.pop("completion", None)
        if not isinstance(completion, str):
            problems.append(Problem(where, f"'completion' is {completion!r}; write a text"))
        row = _row(value, where, "prompt", answer_fields, problems)
        if row and isinstance(completion, str):
            rows.append((row, completion))
    if problems:
        raise UserInputError(list(shorten(problems, str(path))))
    return rows


def hold_out(rows: list[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Split off a seeded 10 % (20 to 200 rows, at most half), both parts in file order."""
    count = round(len(rows) * HELD_OUT_SHARE)
    count = min(max(count, HELD_OUT_LEAST), HELD_OUT_MOST, len(rows) // 2)
    chosen = set(random.Random(seed).sample(range(len(rows)), count))
    kept = [row for i, row in enumerate(rows) if i not in chosen]
    return kept, [rows[i] for i in sorted(chosen)]


def _load_eval_file(
    path: Path, config: RunConfig, problems: list[Problem]
) -> tuple[list[Row], Source]:
    """Rows to judge by; those without a reference stay, because a reward may need none."""
    fields = {config.answer_field}
    return _load_file(path, config, fields, problems, keep_unanswered=True)


def _load_file(
    path: Path,
    config: RunConfig,
    answer_fields: set[str],
    problems: list[Problem],
    keep_unanswered: bool = False,
) -> tuple[list[Row], Source]:
    bad: list[Problem] = []
    rows: list[Row] = []
    no_answer: list[str] = []
    objects = read_objects(path, problems)
    for number, value in objects:
        where = f"{path}:{number}"
        row = _row(value, where, config.with_data().prompt_field, answer_fields, bad)
        if row is None:
            continue
        answered = all(str(row.fields.get(field) or "").strip() for field in answer_fields)
        if answered or keep_unanswered:
            rows.append(row)
        else:
            no_answer.append(where)
    problems.extend(shorten(bad, str(path)))
    if no_answer and not rows and not bad:
        field = sorted(answer_fields)[0]
        found = ", ".join(sorted(objects[0][1]))
        problems.append(
            Problem(
                str(path),
                f"no row has a reference in {field!r} (found keys: {found}); "
                "set reward.answer_field, or use a reward that needs none (inverse_loss)",
            )
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    left_out = {"no reference answer": no_answer} if no_answer else {}
    return rows, Source(str(path), digest, len(objects), left_out)


def _row(
    value: dict[str, Any],
    where: str,
    prompt_field: str,
    answer_fields: set[str],
    problems: list[Problem],
) -> Row | None:
    """One row, or None after its problems were noted."""
    before = len(problems)
    for name in sorted(RESERVED & set(value)):
        problems.append(Problem(where, f"{name!r} is a reserved key; rename it"))
    if prompt_field not in value:
        keys = ", ".join(sorted(value)) or "none"
        problems.append(
            Problem(
                where,
                f"{prompt_field!r} is missing; found keys: {keys} "
                "(set data.prompt_field to the right one)",
            )
        )
        return None
    reason = _prompt_fault(value[prompt_field])
    if reason:
        problems.append(Problem(where, f"{prompt_field!r} {reason}"))
    for field in sorted(answer_fields):
        answer = value.get(field)
        if answer is not None and not isinstance(answer, str):
            problems.append(
                Problem(
                    where,
                    f'{field!r} is {json.dumps(answer)}; write a text such as "{answer}"',
                )
            )
    if len(problems) > before:
        return None
    fields = {key: inner for key, inner in value.items() if key != prompt_field}
    return Row(_copy_prompt(value[prompt_field]), fields, where)


def _copy_prompt(prompt: Any) -> Prompt:
    if isinstance(prompt, str):
        return prompt
    return [Message(role=m["role"], content=m["content"]) for m in prompt]


def _prompt_fault(prompt: Any) -> str | None:
    """What is wrong with a prompt, or None."""
    if isinstance(prompt, str):
        return None if prompt.strip() else "is empty; write a text"
    if not isinstance(prompt, list) or not prompt:
        return f"is a {type(prompt).__name__}; write a text or a list of messages"
    for message in prompt:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            return f'has the message {message!r}; write {{"role": ..., "content": ...}}'
        if not isinstance(message["content"], str):
            return f"has the content {message['content']!r}; write a text"
        if message["role"] not in ("system", "user", "assistant"):
            return f"has the role {message['role']!r}; write system, user or assistant"
    if prompt[-1]["role"] != "user":
        return f"ends with a message of the {prompt[-1]['role']}; end with one of the user"
    return None

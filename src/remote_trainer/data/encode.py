"""Prompts rendered once through the chat template; the ids are kept and nothing is cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.data.load import Dataset, Source
from remote_trainer.data.refusals import NO_TEMPLATE, Refusals, fault_problem
from remote_trainer.engine.codec import Codec, FaultyTemplate, TemplateRefusal
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.records import EncodedRow, Message, Prompt, Row


@dataclass(frozen=True)
class EncodedData:
    """Rows with prompt ids, and the report of what was kept and why others were not."""

    train: list[EncodedRow]
    eval: list[EncodedRow]
    report: dict[str, Any]


def encode_data(data: Dataset, codec: Codec, config: RunConfig) -> EncodedData:
    """Render every prompt; over-long ones are dropped or refused as the config says.

    Raises UserInputError for over-long prompts under ``refuse``, for message prompts without a
    chat template, and when too few rows are left for one update.
    """
    problems: list[Problem] = []
    train, train_long = encode_rows(data.train, codec, config, problems)
    evaluate, eval_long = encode_rows(data.eval, codec, config, problems)
    needed = config.training.prompts_per_update
    if len(train) < needed and not problems:
        problems.append(
            Problem(
                config.with_data().train,
                f"{len(train)} rows are left after dropping {len(train_long)} prompts of more than "
                f"training.max_prompt_length={config.training.max_prompt_length} tokens; one "
                f"update needs {needed}",
            )
        )
    if problems:
        raise UserInputError(problems)
    report = {"train": _report(data.train_source, train, train_long)}
    if data.eval_source:
        report["eval"] = _report(data.eval_source, evaluate, eval_long)
        report["eval"]["held_out_of_train"] = data.eval_source is data.train_source
    return EncodedData(train, evaluate, report)


def encode_rows(
    rows: Sequence[Row], codec: Codec, config: RunConfig, problems: list[Problem]
) -> tuple[list[EncodedRow], list[str]]:
    """(rows with prompt ids, ``file:line`` of dropped ones); refusals go to ``problems``."""
    limit = config.training.max_prompt_length
    refusals = Refusals(codec, config.with_data().system_prompt)
    kept, dropped = [], []
    for row in rows:
        prompt = as_messages(row.prompt, codec, config.with_data().system_prompt)
        if isinstance(prompt, list) and not codec.has_chat_template:
            problems.append(Problem(row.source, NO_TEMPLATE))
            continue
        try:
            ids = codec.encode_prompt(prompt)
        except FaultyTemplate as fault:
            problems.extend({fault_problem(fault)} - set(problems))
            return [], []
        except TemplateRefusal as refusal:
            refusals.add(row, prompt, refusal)
            continue
        if len(ids) <= limit:
            kept.append(EncodedRow(Row(prompt, row.fields, row.source), ids))
            continue
        dropped.append(row.source)
        if config.with_data().overlong_prompts == "refuse":
            problems.append(
                Problem(
                    row.source,
                    f"the prompt has {len(ids)} tokens, over "
                    f"training.max_prompt_length={limit}; shorten it, raise the limit or write "
                    "data.overlong_prompts: drop",
                )
            )
    problems.extend(each for each in refusals.problems() if each not in problems)
    return kept, dropped


def as_messages(prompt: Prompt, codec: Codec, system_prompt: str | None) -> Prompt:
    """A chat model gets text as one user message; the system prompt joins unless there is one."""
    if isinstance(prompt, str):
        if not codec.has_chat_template:
            return prompt if system_prompt is None else f"{system_prompt}\n\n{prompt}"
        prompt = [Message(role="user", content=prompt)]
    if system_prompt is not None and prompt[0]["role"] != "system":
        return [Message(role="system", content=system_prompt), *prompt]
    return prompt


def _report(source: Source, kept: Sequence[EncodedRow], dropped: list[str]) -> dict[str, Any]:
    lengths = [len(row.prompt_ids) for row in kept]
    left_out = {**source.left_out, **({"prompt too long": dropped} if dropped else {})}
    return {
        "file": source.file,
        "sha256": source.sha256,
        "rows_read": source.read,
        "rows_kept": len(kept),
        "rows_left_out": {reason: len(places) for reason, places in left_out.items()},
        "left_out": left_out,
        "prompt_tokens": {
            "min": min(lengths, default=None),
            "median": median(lengths) if lengths else None,
            "max": max(lengths, default=None),
        },
    }

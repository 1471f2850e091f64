"""Converts the arguments of a reward function to `Sample`s; ids take precedence over text."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from remote_trainer.records import EncodedRow, Prompt, Row, Sample, TokenIds, Tools
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer

Completion = str | list[dict[str, Any]]


def build_samples(
    prompt_tokenizer: PromptTokenizer,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]] | None,
    prompt_ids: Sequence[Sequence[int]] | None,
    columns: Mapping[str, Any],
    max_completion_length: int | None,
) -> list[Sample]:
    """One `Sample` per completion. ``columns`` whose length is not that of ``prompts`` are ignored.

    Raises ValueError when the lists do not have one entry per completion.
    """
    lengths = {"completions": len(completions)}
    if completion_ids is not None:
        lengths["completion_ids"] = len(completion_ids)
    for name, length in lengths.items():
        if length != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {length} {name}; pass one per prompt")
    samples = []
    for i, fields in enumerate(_rows(columns, len(prompts))):
        row = prompt_tokenizer.encode_row(Row(prompts[i], fields, "", _tools_of(fields)))
        if prompt_ids is not None:
            row = replace(row, prompt_ids=tuple(prompt_ids[i]))
        if completion_ids is None:
            samples.append(written(prompt_tokenizer, row, text_of(completions[i])))
        else:
            ids = tuple(completion_ids[i])
            samples.append(sampled(prompt_tokenizer, row, ids, max_completion_length))
    return samples


def sampled(
    prompt_tokenizer: PromptTokenizer,
    row: EncodedRow,
    completion_ids: TokenIds,
    max_completion_length: int | None,
) -> Sample:
    """The `Sample` of a completion given as sampled ids, which may be truncated at the limit."""
    content_ids = prompt_tokenizer.without_eos(completion_ids)
    limit_reached = (
        max_completion_length is not None and len(completion_ids) >= max_completion_length
    )
    return _sample(
        prompt_tokenizer,
        row,
        completion_ids,
        prompt_tokenizer.decode(completion_ids),
        truncated=limit_reached and len(content_ids) == len(completion_ids),
    )


def written(prompt_tokenizer: PromptTokenizer, row: EncodedRow, text: str) -> Sample:
    """The `Sample` of a completion given as text: never truncated, without end-of-sequence."""
    return _sample(prompt_tokenizer, row, prompt_tokenizer.encode(text), text, truncated=False)


def _sample(
    prompt_tokenizer: PromptTokenizer,
    encoded: EncodedRow,
    completion_ids: TokenIds,
    text: str,
    truncated: bool,
) -> Sample:
    content_ids = prompt_tokenizer.without_eos(completion_ids)
    return Sample(
        prompt=encoded.row.prompt,
        prompt_ids=encoded.prompt_ids,
        prompt_text=encoded.prompt_text,
        completion_ids=completion_ids,
        content_ids=content_ids,
        completion_text=text,
        truncated=truncated,
        fields=encoded.row.fields,
        source=encoded.row.source,
        thinking=prompt_tokenizer.thinking(encoded.prompt_ids, content_ids),
        answer_pattern=encoded.row.answer_pattern,
    )


def _rows(columns: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Convert columns (one list each) to one mapping per completion."""
    lists = {
        name: values
        for name, values in columns.items()
        if isinstance(values, list | tuple) and len(values) == count
    }
    return [{name: values[i] for name, values in lists.items()} for i in range(count)]


def _tools_of(row: Mapping[str, Any]) -> Tools | None:
    """The row's ``tools`` if they are function definitions for the chat template."""
    tools = row.get("tools")
    if not isinstance(tools, list) or not all(isinstance(each, Mapping) for each in tools):
        return None
    return tools or None


def text_of(completion: Completion) -> str:
    """The text of a completion; of a message list, all contents joined."""
    if isinstance(completion, str):
        return completion
    return "".join(str(message.get("content") or "") for message in completion)

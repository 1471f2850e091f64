"""What a caller hands to a reward function, turned into `Sample`s: ids win over text."""

from collections.abc import Mapping, Sequence
from typing import Any

from remote_trainer.engine.codec import Codec
from remote_trainer.records import Prompt, Sample, TokenIds

Completion = str | list[dict[str, Any]]


def build_samples(
    codec: Codec,
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
    for name, given in (("completions", completions), ("completion_ids", completion_ids)):
        if given is not None and len(given) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(given)} {name}: one each is needed")
    rows = _rows(columns, len(prompts))
    return [
        _sample(
            codec,
            prompts[i],
            completions[i],
            None if completion_ids is None else tuple(completion_ids[i]),
            None if prompt_ids is None else tuple(prompt_ids[i]),
            rows[i],
            max_completion_length,
        )
        for i in range(len(prompts))
    ]


def _rows(columns: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Columns as trainers pass them (one list each) into one mapping per completion."""
    lists = {
        name: values
        for name, values in columns.items()
        if isinstance(values, list | tuple) and len(values) == count
    }
    return [{name: values[i] for name, values in lists.items()} for i in range(count)]


def _sample(
    codec: Codec,
    prompt: Prompt,
    completion: Completion,
    completion_ids: TokenIds | None,
    prompt_ids: TokenIds | None,
    fields: Mapping[str, Any],
    max_completion_length: int | None,
) -> Sample:
    sampled = completion_ids is not None
    ids = completion_ids if completion_ids is not None else codec.encode(_text(completion))
    content_ids = codec.without_eos(ids)
    limit_reached = sampled and max_completion_length is not None and len(ids) >= max_completion_length
    return Sample(
        prompt_ids=codec.encode_prompt(prompt) if prompt_ids is None else prompt_ids,
        completion_ids=ids,
        content_ids=content_ids,
        prompt_text=codec.prompt_text(prompt),
        completion_text=codec.decode(ids) if sampled else _text(completion),
        truncated=limit_reached and len(content_ids) == len(ids),
        fields=fields,
    )


def _text(completion: Completion) -> str:
    if isinstance(completion, str):
        return completion
    return "".join(str(message.get("content") or "") for message in completion)

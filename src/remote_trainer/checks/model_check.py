"""Checks a config against model files: positions, vocabulary size, end of sequence."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from remote_trainer.checks.lora_targets import targets_of, unmatched, with_names
from remote_trainer.checks.positions import position_notes, position_problems, within_positions
from remote_trainer.config import RunConfig
from remote_trainer.data import Dataset
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.field_paths import find
from remote_trainer.models.fast_path import fast_path, reasons_in_files
from remote_trainer.models.layer_names import Targets
from remote_trainer.models.model_facts import ModelFacts
from remote_trainer.records import TokenIds
from remote_trainer.tokenization.answer_end import ids_after_answer
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer

SOME_NAMES = 5


@dataclass
class Findings:
    """Results of the checks."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    targets: Targets | None = None
    """Layers that get an adapter; None if the names are wrong or given by model.adapter."""
    fast_path: str | None = None
    """Whether the CPU fast path applies, from config.json; None if that is invalid."""


def look_at_model(
    config: RunConfig,
    facts: ModelFacts,
    prompt_tokenizer: PromptTokenizer | None,
    data: Dataset | None,
    report: Mapping[str, Any] | None,
    strict: bool = True,
) -> Findings:
    """Check config.json, headers and tokenizer; loads no weights.

    ``report`` is the report of the encoded data, if any. Without ``strict``, lengths are a problem
    only if the rows reach them; training uses this, because it drops longer prompts.
    """
    found = Findings()
    try:
        facts.read()  # here, so that a broken file is reported once
    except UserInputError as error:
        return Findings(list(error.problems))
    if config.model.adapter is None:
        try:
            found.targets = targets_of(config, facts)
            warning = unmatched(found.targets, facts)
            found.warnings += [warning] if warning else []
        except UserInputError as error:
            found.problems += error.problems
    found.fast_path = _fast_path(config, facts)
    found.problems += position_problems(config, facts, prompt_tokenizer, data, report, strict)
    found.notes += position_notes(config, facts)
    if prompt_tokenizer is not None:
        _look_at_vocabulary(found, config, facts, prompt_tokenizer, data)
        _look_at_ends(found, facts, prompt_tokenizer)
    return found


def _fast_path(config: RunConfig, facts: ModelFacts) -> str:
    """On a CPU ``auto`` means no quantisation."""
    return fast_path(
        reasons_in_files(
            facts.config,
            dtype=config.model.dtype,
            in_4bit=config.model.load_in_4bit is True,
            remote_code=config.model.trust_remote_code,
        )
    )


def settle(config: RunConfig, facts: ModelFacts) -> RunConfig:
    """The config adapted to this model: layer names instead of a keyword, lengths within limits.

    Raises UserInputError as `targets_of` does.
    """
    config = within_positions(config, facts)
    if config.model.adapter is not None:
        return config
    return with_names(config, targets_of(config, facts).names)


def _look_at_vocabulary(
    found: Findings,
    config: RunConfig,
    facts: ModelFacts,
    prompt_tokenizer: PromptTokenizer,
    data: Dataset | None,
) -> None:
    """Token ids without a row in the input embedding."""
    rows = facts.vocabulary
    beyond = {
        t: i
        for t, i in prompt_tokenizer.tokenizer.get_vocab().items()
        if rows is not None and i >= rows
    }
    if not beyond:
        return
    names = sorted(beyond, key=lambda token: beyond[token])
    more = f" and {len(names) - SOME_NAMES} more" if len(names) > SOME_NAMES else ""
    problem = (
        f"the tokenizer has ids up to {max(beyond.values())}, but the model's embedding has only "
        f"{rows} rows, so these tokens cannot be used: "
        f"{', '.join(f'{name!r} ({beyond[name]})' for name in names[:SOME_NAMES])}{more}"
    )
    used = _used(names, _texts(config, prompt_tokenizer, data))
    if not used and set(names) <= prompt_tokenizer.tokenizer.added_tokens():
        found.notes.append(f"{problem}; no row contains them")
        return
    where = f"; {', '.join(map(repr, used))} occurs in the data or the template" if used else ""
    found.problems.append(
        Problem(
            "model.name",
            f"{problem}{where}; resize the model's embeddings (resize_token_embeddings) and save "
            "it, or use the tokenizer that it was trained with",
        )
    )


def _used(names: Sequence[str], texts: Iterable[str]) -> list[str]:
    """The first few of the names that occur in a text."""
    unused = list(names)
    used = []
    for text in texts:
        for name in [name for name in unused if name in text]:
            used.append(name)
            unused.remove(name)
    return used[:SOME_NAMES]


def _texts(
    config: RunConfig, prompt_tokenizer: PromptTokenizer, data: Dataset | None
) -> Iterator[str]:
    """All texts that are tokenised."""
    yield str(prompt_tokenizer.tokenizer.chat_template or "")
    if config.data is not None and config.data.system_prompt:
        yield config.data.system_prompt
    for row in (*data.train, *data.eval) if data is not None else ():
        yield from _parts(row.prompt)
        yield from _parts(find(row.fields, config.answer_field))


def _parts(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _parts(inner)


def _look_at_ends(found: Findings, facts: ModelFacts, prompt_tokenizer: PromptTokenizer) -> None:
    """A completion must end with a token that the model has learned to end with."""
    ends: TokenIds = tuple(dict.fromkeys([*prompt_tokenizer.eos_ids, *facts.eos_ids]))
    after_answer = ids_after_answer(prompt_tokenizer)
    closing = next((i for i in after_answer or () if not prompt_tokenizer.decode((i,))), None)
    names = {i: token for token, i in prompt_tokenizer.tokenizer.get_vocab().items()}
    if not ends:
        example = "" if closing is None else f', for instance "eos_token": "{names[closing]}"'
        found.problems.append(
            Problem(
                "model.name",
                "the model has no end-of-sequence token (eos_token in tokenizer_config.json, "
                "eos_token_id in generation_config.json or config.json), so every completion "
                "would reach training.max_completion_length and count as truncated; write the "
                f"token that ends an answer into tokenizer_config.json{example}",
            )
        )
    elif after_answer is not None and not set(ends) & set(after_answer):
        stops = ", ".join(repr(names.get(i, str(i))) for i in ends)
        written = "no such token" if closing is None else repr(names[closing])
        fix = (
            ""
            if closing is None
            else (
                f"; add its id {closing} to eos_token_id in the model's generation_config.json, "
                f"which may be a list: {[*ends, closing]}"
            )
        )
        found.warnings.append(
            f"the model may never stop: a completion ends at {stops}, but the chat template "
            f"writes {written} after an answer{fix}"
        )

"""The maximum length of a model, and settings of a config that exceed it."""

from collections.abc import Mapping
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.data import Dataset
from remote_trainer.errors import Problem
from remote_trainer.evaluation.answers import SPARE_TOKENS
from remote_trainer.field_paths import find
from remote_trainer.models.model_facts import ModelFacts
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer

Report = Mapping[str, Any]
LONG_REFERENCES = 32


def within_positions(config: RunConfig, facts: ModelFacts) -> RunConfig:
    """The config with lengths within the limits of the model.

    ``model.max_seq_length`` is lowered to the model's unless set; with learned positions
    ``max_prompt_length`` is lowered so that the longest completion fits.
    """
    if facts.positions is None:
        return config
    most, training, model = facts.positions[1], config.training, config.model
    learned = facts.learnt_positions is not None
    left = most - training.max_completion_length
    if learned and 0 < left < training.max_prompt_length:
        training = training.model_copy(update={"max_prompt_length": left})
    # The larger of the two, because a config with conflicting lengths is invalid.
    length = max(most, training.max_prompt_length + training.max_completion_length)
    if length < model.max_seq_length and "max_seq_length" not in model.model_fields_set:
        model = model.model_copy(update={"max_seq_length": length})
    return config.model_copy(update={"model": model, "training": training})


def context_length(config: RunConfig, facts: ModelFacts) -> int:
    """Context of a conversation: as in the config, by default limited by the positions."""
    length = config.model.max_seq_length
    if "max_seq_length" in config.model.model_fields_set:
        return min(length, facts.learnt_positions or length)
    return min(length, facts.positions[1] if facts.positions else length)


def position_notes(config: RunConfig, facts: ModelFacts) -> list[str]:
    """Notes on lowered limits, and on lengths beyond those the model was trained on."""
    if facts.positions is None:
        return []
    most, limit = facts.positions[1], _limit(facts)
    notes = []
    lowered = within_positions(config, facts)
    if lowered.model.max_seq_length != config.model.max_seq_length:
        notes.append(
            f"model.max_seq_length is lowered from {config.model.max_seq_length} to "
            f"{lowered.model.max_seq_length}: {limit}"
        )
    if facts.learnt_positions is not None:
        if lowered.training.max_prompt_length != config.training.max_prompt_length:
            notes.append(
                f"training.max_prompt_length is lowered from {config.training.max_prompt_length} "
                f"to {lowered.training.max_prompt_length}: a prompt and "
                f"{config.training.max_completion_length} completion tokens must fit into {limit}"
            )
        return notes
    explicit = config.model.model_fields_set & {"max_seq_length"}
    over = {
        _SUM: _total_length(config),
        "model.max_seq_length": config.model.max_seq_length if explicit else 0,
    }
    notes += [
        f"{name} = {length} tokens, over {limit}: the model was not trained on longer texts and "
        "may answer them badly"
        for name, length in over.items()
        if length > most
    ]
    return notes


def position_problems(
    config: RunConfig,
    facts: ModelFacts,
    prompt_tokenizer: PromptTokenizer | None,
    data: Dataset | None,
    report: Report | None,
    strict: bool,
) -> list[Problem]:
    """Lengths beyond the learned positions of a model; none for other models.

    Without ``strict`` only lengths that the rows of ``report`` reach.
    """
    most = facts.learnt_positions
    if most is None:
        return []
    problems, limit = [], f"{_limit(facts)}, the number of learned position embeddings"
    model, training = config.model, config.training
    if model.max_seq_length > most and "max_seq_length" in model.model_fields_set:
        problems.append(
            Problem(
                "model.max_seq_length",
                f"{model.max_seq_length} is over {limit}; write {most} or less, or omit it",
            )
        )
    prompt = _longest_prompt(report)
    reached = prompt is None or prompt + training.max_completion_length > most
    if _total_length(config) > most and (strict or reached):
        seen = "" if prompt is None else f" (the longest prompt here has {prompt})"
        problems.append(
            Problem(
                "training.max_completion_length",
                f"{_SUM} = {_total_length(config)} tokens{seen}, over {limit}; lower one or both, "
                f"so that the sum is at most {most}",
            )
        )
    elif prompt is not None and prompt_tokenizer is not None and data is not None:
        problems += _after_prompts(config, prompt_tokenizer, data, prompt, most, limit)
    return problems


_SUM = "training.max_prompt_length + training.max_completion_length"


def _after_prompts(
    config: RunConfig,
    prompt_tokenizer: PromptTokenizer,
    data: Dataset,
    prompt: int,
    most: int,
    limit: str,
) -> list[Problem]:
    """References and held-out answers after the longest prompt."""
    problems = []
    length = config.evaluation.max_completion_length
    if length is not None and prompt + length > most:
        problems.append(
            Problem(
                "evaluation.max_completion_length",
                f"{length} after the longest prompt ({prompt} tokens) is over {limit}; write "
                f"{most - prompt} or less",
            )
        )
    needs = any(reward.needs_answer for reward in config.reward)
    reference = _longest_reference(config, prompt_tokenizer, data, needs)
    completion = config.training.max_completion_length if needs else 1
    if reference and prompt + completion + SPARE_TOKENS + reference > most:
        problems.append(
            Problem(
                "training.max_completion_length",
                f"the longest prompt ({prompt} tokens), a completion ({completion}) and the "
                f"longest reference after it ({reference}, and {SPARE_TOKENS} between them) are "
                f"over {limit}; lower it, or remove the longest rows",
            )
        )
    return problems


def _longest_prompt(report: Report | None) -> int | None:
    lengths = [part["prompt_tokens"]["max"] for part in (report or {}).values()]
    return max((length for length in lengths if length is not None), default=None)


def _longest_reference(
    config: RunConfig, prompt_tokenizer: PromptTokenizer, data: Dataset, needs: bool
) -> int:
    """Tokens of the longest reference that is scored; 0 if none is."""
    asks = needs or config.guard.action != "off"
    rows = (*(data.train if asks else ()), *data.eval)
    answers = (find(row.fields, config.answer_field) for row in rows)
    texts = (text for each in answers for text in (each if isinstance(each, list) else [each]))
    found = {text for text in texts if isinstance(text, str)}
    longest = sorted(found, key=len, reverse=True)[:LONG_REFERENCES]
    return max((len(prompt_tokenizer.encode(text)) for text in longest), default=0)


def _total_length(config: RunConfig) -> int:
    return config.training.max_prompt_length + config.training.max_completion_length


def _limit(facts: ModelFacts) -> str:
    assert facts.positions is not None, "called only if there is a limit"
    key, most = facts.positions
    own = "" if key == "max_position_embeddings" else f" ({key} in its config.json)"
    return f"the model's max_position_embeddings={most}{own}"

"""The settings that a new config shows, and their values."""

from typing import Any

from remote_trainer.starter.guess import Fields

SHORTEST_LIMIT, LONGEST_LIMIT = 32, 512
CHARACTERS_PER_TOKEN = 2
"""Fewer than in most texts, so that a completion may be longer than its reference."""
LIMIT_WITHOUT_ANSWERS = 128


def completion_limit(longest_answer: int) -> int:
    """training.max_completion_length for answers of at most ``longest_answer`` characters."""
    limit = SHORTEST_LIMIT
    while limit < min(longest_answer / CHARACTERS_PER_TOKEN, LONGEST_LIMIT):
        limit *= 2
    return limit


def starting_settings(
    train: str, fields: Fields, supervised: bool, limit: int, system_prompt: str | None
) -> dict[str, Any]:
    """Values by section and key. ``train`` is the path of the data file.

    The rewards and the values of `training` are those of the study in docs/learning.md.
    """
    answer = fields.answer or "answer"
    return {
        "model": {"name": "builtin/smollm2-135m-instruct"},
        "data": {
            "train": train,
            "eval": "auto",
            "prompt_field": fields.prompt,
            "system_prompt": system_prompt,
        },
        "reward": _pairs(answer) if supervised else _prompts_only(),
        "training": {
            "learning_rate": 2.0e-4 if supervised else 1.0e-4,
            "beta": 0.04 if supervised else 0.3,
            "scale_rewards": "none" if supervised else "group",
            "max_steps": 60,
            "max_completion_length": limit,
        },
        "output_dir": "runs/first",
    }


def _pairs(answer: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "supervised",
            "answer_field": answer,
            "scored_by": "reference",
            "connector": "\nThe correct answer is: ",
        },
        {"type": "inverse_loss", "weight": 0.1, "scored_by": "reference"},
        {"type": "length_limit", "answer_field": answer, "weight": 0.5},
    ]


def _prompts_only() -> list[dict[str, Any]]:
    return [{"type": "inverse_loss", "scored_by": "reference"}]

"""The settings that a new config shows, and their values."""

from typing import Any

from remote_trainer.starter.guess import Fields

SHORTEST_LIMIT, LONGEST_LIMIT = 64, 512
CHARACTERS_PER_TOKEN = 2
"""Fewer than in most texts, so that a completion may be longer than its reference."""
LIMIT_WITHOUT_ANSWERS = 64


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

    Rewards and training keep the defaults of the schema, which are those of the study in
    docs/learning.md.
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
        "reward": [_pairs(answer) if supervised else {"type": "inverse_loss"}],
        "training": {
            "learning_rate": 4.0e-4,
            "max_steps": 90,
            "max_completion_length": limit,
        },
        "output_dir": "runs/first",
    }


def _pairs(answer: str) -> dict[str, Any]:
    return {"type": "supervised", "answer_field": answer, "fluency_weight": 1.0}

"""Settings of the evaluation before and after training, and of the probes in between."""

from typing import Literal

from remote_trainer.config.section import Count, PositiveInt, Section


class EvaluationSettings(Section):
    rows: PositiveInt | None = None
    """Use only the first rows; null: all."""
    samples: PositiveInt = 8
    """Sampled completions per row at temperature 1, in addition to the greedy one."""
    max_completion_length: PositiveInt | None = None
    """Maximum completion tokens; null: see limit_from."""
    limit_from: Literal["training", "references"] = "training"
    """What max_completion_length null means. references: max(16, 4 x longest reference answer);
    training: the longer of that and training.max_completion_length."""
    every_steps: Count = 0
    """Updates between probes for the guard and training.keep; 0: training.save_steps, but 5 in the
    first 20 updates and after a warning."""

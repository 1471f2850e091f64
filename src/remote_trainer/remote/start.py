"""A run in this process or with several workers. Imports Ray only for the latter."""

from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.pipeline import train
from remote_trainer.pipeline.extras import TO_TRAIN, require_packages
from remote_trainer.progress import ProgressCallbacks


def start(
    config: RunConfig,
    config_text: str,
    resume: str,
    allow_changed: bool,
    watch: ProgressCallbacks,
    workers: int | None,
) -> dict[str, Any]:
    """Train and return the content of eval.json; see `remote_trainer.pipeline.train.run`."""
    if workers is None:
        return train.run(config, config_text, resume, allow_changed, watch)
    require_packages("--workers", TO_TRAIN)
    require_packages("--workers", ("ray",), "ray")
    # Most runs do not need it.
    from remote_trainer.remote.workers import train_with_workers

    return train_with_workers(config, config_text, workers, resume, allow_changed, watch)

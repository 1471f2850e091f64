"""The settings of runs with several workers."""

from remote_trainer.config.section import Count, PathText, Section


class DistributedSettings(Section):
    max_failures: Count = 3
    """How many times the workers of `train --workers` may be restarted after one of them died."""
    storage: PathText | None = None
    """A folder or URI (s3://..., gs://...) that all machines reach. The run folder is copied there
    after each checkpoint, and read from there on a machine that does not have it."""

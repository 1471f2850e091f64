"""What a run folder says, as one page that can be read without a network."""

from remote_trainer.report.page import write_report

__all__ = ["write_report"]

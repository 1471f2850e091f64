"""What a run folder says, as one page that can be read without a network."""

from remote_trainer.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]

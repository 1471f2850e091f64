"""What a run folder says, as one page that can be read without a network."""

from remote_trainer.report.page import (
    has_report,
    render_report,
    write_report,
    write_unfinished_report,
)

__all__ = ["has_report", "render_report", "write_report", "write_unfinished_report"]

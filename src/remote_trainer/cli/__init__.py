"""Commands, printing and exit codes: the only package that prints."""

from remote_trainer.cli.commands import main

__all__ = ["main"]

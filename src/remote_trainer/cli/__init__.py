"""Commands, printing and exit codes: the only package that prints."""

from remote_trainer.cli.app import main

__all__ = ["main"]

"""Commands, printing and exit codes: the only room that talks to people."""

from remote_trainer.cli.commands import main

__all__ = ["main"]

"""A new folder to start from: a config with comments, a data sample and the next steps."""

from remote_trainer.starter.folder import start_folder

__all__ = ["start_folder"]

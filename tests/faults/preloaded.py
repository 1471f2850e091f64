"""Everything that a training command imports, loaded once in the process that others fork from."""

import torch

import remote_trainer.cli.commands
import remote_trainer.pipeline.train
import remote_trainer.trainer.loop

torch.set_num_threads(1)

__all__ = ["remote_trainer"]

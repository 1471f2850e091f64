"""Fine-tune language models with GRPO, using rewards computed from token log-probabilities."""

import os

from remote_trainer.openmp import limit_spinning

__version__ = "0.1.0"

limit_spinning(os.environ)

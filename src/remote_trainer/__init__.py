"""Fine-tune language models with GRPO, using rewards computed from token log-probabilities."""

__version__ = "0.1.0"

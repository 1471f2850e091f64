"""Fine-tune language models with GRPO, using rewards computed from token log-probabilities."""

import os

from remote_trainer.onednn import limit_product_caches
from remote_trainer.openmp import limit_spinning
from remote_trainer.telemetry import send_no_usage_data

__version__ = "0.1.0"

# Here, because the libraries underneath read their variables once, when they are imported.
limit_spinning(os.environ)
limit_product_caches(os.environ)
send_no_usage_data(os.environ)

"""What every command sets in its process before it begins."""

import io
import logging
import os
import sys

from remote_trainer.faults import arm


def prepare() -> None:
    """Output, logging, quiet libraries, and the faults of ``RT_FAULT``.

    Raises UserInputError for faults that do not exist.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error: text that it cannot encode
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    # It reports a missing optional package at every import; nothing here uses that package.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    arm(os.environ.get("RT_FAULT", ""))

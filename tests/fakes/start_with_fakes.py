"""The command line on a machine that claims a GPU, as far as the engine; prints what the fakes saw.

Run in a process of its own with this folder on the path:
python start_with_fakes.py train config.json
"""

import json
import sys
from typing import Any
from unittest.mock import patch

from train_with_fakes import FACTS

from remote_trainer.cli import main
from remote_trainer.pipeline import backend as choosing
from remote_trainer.pipeline import train as training


def load_unsloth_alone(*_: Any) -> None:
    """In place of a model."""
    from remote_trainer.engines.unsloth_import import import_unsloth

    unsloth = import_unsloth()
    print(json.dumps({"early": unsloth.EARLY, "standby": unsloth.STANDBY}))
    raise SystemExit(0)


if __name__ == "__main__":
    with (
        patch.object(choosing, "find_facts", lambda: FACTS),
        patch.object(training, "load_trainable", load_unsloth_alone),
    ):
        try:
            main()
        finally:
            if sys.argv[1] == "check":
                print(json.dumps("unsloth" in sys.modules))

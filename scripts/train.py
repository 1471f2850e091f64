"""``python scripts/train.py --config FILE``: the same as ``remote-trainer train FILE``."""

import sys

from remote_trainer.cli import main

if __name__ == "__main__":
    if "--config" in sys.argv:
        sys.argv.remove("--config")
    sys.argv.insert(1, "train")
    main()

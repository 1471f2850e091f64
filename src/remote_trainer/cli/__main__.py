"""``python -m remote_trainer.cli``, where the script is not installed."""

from remote_trainer.cli.app import main

main()

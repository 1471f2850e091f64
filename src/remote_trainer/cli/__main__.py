"""``python -m remote_trainer.cli``, where the script is not installed."""

from remote_trainer.cli.commands import main

main()

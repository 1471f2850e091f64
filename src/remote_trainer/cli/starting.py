"""The commands before a run: a folder to start from, and the schema for editors."""

import json
from pathlib import Path
from typing import Annotated

import typer

from remote_trainer.cli.arguments import as_path
from remote_trainer.cli.output import say
from remote_trainer.cli.progress import reading
from remote_trainer.progress import in_megabytes, late


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", parser=as_path, help="Folder to create.")
    ],
    supervised: Annotated[
        bool | None,
        typer.Option(
            "--supervised/--unsupervised",
            help="Rewards with or without reference answers; default: supervised, or what the rows "
            "of --from have.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", parser=as_path, help="JSONL file with your own rows."
        ),
    ] = None,
) -> None:
    """Make a folder with a config, data and the next steps."""
    # Imported here to keep --help fast.
    from remote_trainer.starter import start_folder

    with reading() as watch:
        progress = in_megabytes(late(watch, "reading rows"))
        chosen = start_folder(folder, supervised, source, progress)
    say(f"made {folder}: config.yaml, NEXT_STEPS.md and the schema for editors")
    for sentence in chosen:
        say(sentence)
    say(f"next: cd {folder} && remote-trainer check config.yaml")


def schema() -> None:
    """Print the JSON schema of the config, for editors."""
    # Imported here to keep --help fast.
    from remote_trainer.config.json_schema import config_schema

    say(json.dumps(config_schema(), indent=2, ensure_ascii=False))

"""The commands around runs: a folder to start from, the schema for editors, the local page."""

import json
import os
import shlex
import sys
import webbrowser
from contextlib import suppress
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
    say(f"next: cd {shlex.quote(str(folder))} && remote-trainer check config.yaml")


def schema() -> None:
    """Print the JSON schema of the config, for editors."""
    # Imported here to keep --help fast.
    from remote_trainer.config.json_schema import config_schema

    say(json.dumps(config_schema(), indent=2, ensure_ascii=False))


def ui(
    runs_dir: Annotated[
        Path, typer.Argument(metavar="RUNS_DIR", parser=as_path, help="Folder that contains runs.")
    ],
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Default: 8765, or a free one if that is taken."),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, but open no browser.")
    ] = False,
) -> None:
    """Show runs on a local page: state, verdict, live curves, reports. Only reads."""
    # Imported here to keep --help fast.
    from remote_trainer.ui.server import RunsServer

    with RunsServer(runs_dir, port) as server:
        say(f"{server.url} shows the runs in {runs_dir}; Ctrl-C ends it")
        if not no_browser and _has_display():
            webbrowser.open(server.url)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _has_display() -> bool:
    """Whether a browser gets a window; in a terminal it would take the terminal over."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform == "darwin" or bool(named)

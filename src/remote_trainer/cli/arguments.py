"""Arguments that several commands take, and paths as people write them."""

from pathlib import Path
from typing import Annotated

import typer

from remote_trainer.paths import expand


def as_text(value: str) -> str:
    """A path, a model id or a word; ``~`` is expanded."""
    try:
        return expand(str(value))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def as_path(value: str | Path) -> Path:
    """A path with ``~`` expanded."""
    return Path(as_text(str(value)))


ConfigArgument = Annotated[
    Path, typer.Argument(parser=as_path, help="YAML file with the settings.")
]
TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN_DIR|MODEL", parser=as_text, help="A run, or a model by name or folder."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. training.seed=1."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

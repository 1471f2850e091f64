"""Arguments that several commands share, and their parsers."""

import platform
from pathlib import Path
from typing import Annotated

import typer

from remote_trainer import __version__
from remote_trainer.environment import version_of
from remote_trainer.export_formats import names_for_config
from remote_trainer.paths import expand

FORMS = names_for_config()


def as_text(value: str) -> str:
    """A path, a model id or a word; ``~`` is expanded."""
    try:
        return expand(str(value))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def as_path(value: str | Path) -> Path:
    """A path with ``~`` expanded."""
    return Path(as_text(str(value)))


def show_version(requested: bool) -> None:
    """Print the versions and exit, if ``--version`` was given."""
    if not requested:
        return
    typer.echo(f"remote-trainer {__version__}\nPython {platform.python_version()}")
    for package in ("torch", "transformers", "trl"):
        typer.echo(f"{package} {version_of(package)}")
    raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option(
        "--version",
        callback=show_version,
        is_eager=True,
        help="Print the versions of this program, Python and the training packages.",
    ),
]
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
JsonLinesOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object per line: progress, then the result."),
]
ProbeOption = Annotated[
    bool,
    typer.Option(
        "--probe",
        help="Also load the model, sample and train a few updates (thrown away): right answers, "
        "rewards, time, memory and how far the run will move the model.",
    ),
]
OutputFile = Annotated[
    Path | None, typer.Option(metavar="FILE", parser=as_path, help="HTML file to write.")
]
OutputFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", parser=as_path, help="Folder to create.")
]
ResumeOption = Annotated[
    str,
    typer.Option(
        metavar="auto|never|PATH",
        parser=as_text,
        help="auto: resume an unfinished run; never: start over; or a checkpoint.",
    ),
]
AgainstOption = Annotated[
    str | None,
    typer.Option(metavar="RUN_DIR|MODEL", parser=as_text, help="Compare with this run or model."),
]
AllowChangedOption = Annotated[
    bool,
    typer.Option(
        "--allow-changed",
        help="Resume although config or data changed; also extends a finished run, and lets a GPU "
        "engine run with untested versions of its packages.",
    ),
]
FormatOption = Annotated[
    str, typer.Option("--format", help=f"{', '.join(FORMS[:-1])} or {FORMS[-1]}.")
]
GgufTypeOption = Annotated[
    str | None,
    typer.Option(
        help="Weight type of a GGUF, e.g. q8_0, q4_k_m, f16; "
        "with lora: also write the adapter as GGUF."
    ),
]
PushOption = Annotated[
    str | None,
    typer.Option(metavar="REPO", help="Upload to this Hugging Face repository (owner/name)."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Train with this many processes under Ray Train, each on its own GPU if any."
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        parser=as_text,
        help="A folder or URI that all machines reach: sets distributed.storage.",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", help="Print only errors and one result line.")
]
RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN_DIR", parser=as_path, help="A finished run, or a checkpoint of a run."
    ),
]

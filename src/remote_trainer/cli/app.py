"""The command line: every command with its examples, and what errors become."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from remote_trainer.cli.arguments import VersionOption
from remote_trainer.cli.commands import (
    chat,
    check,
    doctor,
    evaluate,
    export,
    report,
    rewards,
    score,
    train,
)
from remote_trainer.cli.output import complain
from remote_trainer.cli.process import prepare
from remote_trainer.cli.starting import init, schema, ui
from remote_trainer.errors import EXIT_INTERRUPTED, RemoteTrainerError, UserInputError

_SUMMARY = "Fine-tune language models with GRPO, using rewards from token log-probabilities."
_USUAL = "0 done, 2 invalid input"
_RESULTS = f"{_USUAL}, 1 any other error"


@dataclass(frozen=True)
class Command:
    """A command with the end of its help page."""

    run: Callable[..., Any]
    example: str
    """Arguments after the name; several examples are separated by line ends."""
    exits: str = _USUAL
    """Exit codes and their meaning."""
    name: str = ""
    """Empty: that of the function."""

    @property
    def called(self) -> str:
        return self.name or self.run.__name__

    @property
    def epilog(self) -> str:
        """Examples and exit codes."""
        lines = self.example.splitlines()
        examples = "\n".join(f"  remote-trainer {self.called} {line}".rstrip() for line in lines)
        return f"Example:\n{examples}\n\nExit codes: {self.exits}."


COMMANDS = (
    Command(init, "my-run\nmy-run --from pairs.jsonl"),
    Command(check, "config.yaml --set training.seed=1", "0 no problems, 2 problems"),
    Command(
        train,
        "config.yaml\nconfig.yaml --set output_dir=runs/second --json",
        "0 done, 2 invalid input, 3 stopped by the guard (a result is there), "
        "130 or 143 interrupted after a checkpoint, 1 any other error",
    ),
    Command(score, "config.yaml --input completions.jsonl --output rewards.jsonl", _RESULTS),
    Command(evaluate, "runs/first --data held_out.jsonl --base", _RESULTS, "eval"),
    Command(chat, "runs/first --base", _RESULTS),
    Command(
        export,
        "runs/first --format gguf --gguf-type q4_k_m",
        "0 written and verified, 2 invalid input, 1 not verified or any other error",
    ),
    Command(report, "runs/first runs/second --output comparison.html"),
    Command(
        ui,
        "runs\nruns --port 9000 --no-browser",
        "0 ended with Ctrl-C, 2 invalid input",
    ),
    Command(rewards, "\nsupervised"),
    Command(
        doctor,
        "config.yaml",
        "0 the config can train here, 1 it cannot, 2 invalid input",
    ),
    Command(schema, "> config.schema.json", "0 done"),
)


def options(version: VersionOption = False) -> None:
    """Options of the program itself."""


def make_app() -> typer.Typer:
    """The app with all commands, in the order of `COMMANDS`."""
    made = typer.Typer(help=_SUMMARY, no_args_is_help=True, pretty_exceptions_enable=False)
    made.callback()(options)
    for command in COMMANDS:
        made.command(command.called, epilog=command.epilog)(command.run)
    return made


app = make_app()


def main() -> None:
    """Run the command line; errors of this program become a message and an exit code."""
    try:
        prepare()
        app()
    except UserInputError as error:
        count = len(error.problems)
        complain(f"{count} problem{'s' if count > 1 else ''}:")
        for problem in error.problems:
            complain(f"  {problem}")
        sys.exit(error.exit_code)
    except RemoteTrainerError as error:
        complain(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(EXIT_INTERRUPTED)

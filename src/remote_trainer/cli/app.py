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
from remote_trainer.cli.remote import down, fetch, logs, status, stop, submit, up
from remote_trainer.cli.starting import init, schema, ui
from remote_trainer.errors import EXIT_INTERRUPTED, RemoteTrainerError, UserInputError

_SUMMARY = "Fine-tune language models with GRPO, using rewards from token log-probabilities."
_USUAL = "0 done, 2 invalid input"
_RESULTS = f"{_USUAL}, 1 any other error"
_REMOTE = "2 invalid input, 1 any other error"
_GROUPS = {"remote": "Start or stop a token-protected Ray on a machine."}
"""Command with subcommands -> summary."""


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
    group: str = ""
    """Command that it is a subcommand of; empty: none."""

    @property
    def called(self) -> str:
        """Its words after the program's name."""
        return f"{self.group} {self.name or self.run.__name__}".lstrip()

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
        "config.yaml\nconfig.yaml --set output_dir=runs/second --json\nconfig.yaml --workers 2",
        "0 done, 2 invalid input, 3 stopped by the guard (a result is there), "
        "130 or 143 interrupted after a checkpoint, 1 any other error",
    ),
    Command(
        submit,
        "config.yaml --host user@machine\nconfig.yaml --address http://127.0.0.1:8265 --workers 2",
        f"0 submitted, {_REMOTE}",
    ),
    Command(status, "--host user@machine\nmy-job --host user@machine --json", f"0 done, {_REMOTE}"),
    Command(
        logs,
        "my-job --host user@machine --follow",
        "0 done, 2 invalid input, 1 the job did not succeed (with --follow) or any other error",
    ),
    Command(stop, "my-job --host user@machine", f"0 stopped, {_REMOTE}"),
    Command(
        fetch,
        "my-job --host user@machine --output runs/first",
        f"0 every file arrived and is verified, {_REMOTE}",
    ),
    Command(up, "user@machine --venv .venv", f"0 Ray runs there, {_REMOTE}", group="remote"),
    Command(down, "user@machine", f"0 Ray is stopped there, {_REMOTE}", group="remote"),
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
    groups = {"": made}
    for command in COMMANDS:
        if command.group not in groups:
            group = typer.Typer(help=_GROUPS[command.group], no_args_is_help=True)
            made.add_typer(group, name=command.group)
            groups[command.group] = group
        name = command.called.split()[-1]
        groups[command.group].command(name, epilog=command.epilog)(command.run)
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

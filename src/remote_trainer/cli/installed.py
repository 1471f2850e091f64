"""The commands about the program itself: its rewards, and what works on this machine."""

import json
from pathlib import Path
from typing import Annotated

import typer

from remote_trainer.cli.arguments import JsonOption, SetOption, as_path
from remote_trainer.cli.texts import describe_diagnosis, describe_reward, describe_rewards
from remote_trainer.errors import EXIT_FAILED, UserInputError


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (rewards, doctor):
        app.command()(command)


def rewards(
    name: Annotated[
        str | None, typer.Argument(help="One reward; without it, all are listed.")
    ] = None,
) -> None:
    """List all rewards, or describe one: formula, range, options, known failure."""
    # Imported here to keep --help fast.
    from remote_trainer.docs_pages.reward_pages import reward_page
    from remote_trainer.rewards import REWARDS

    if name is None:
        print(describe_rewards([reward_page(each) for each in REWARDS]))
    else:
        print(describe_reward(reward_page(name)))


def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(parser=as_path, help="A config; without it, the defaults are checked."),
    ] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is installed, what works here, and how to fix the rest."""
    # Imported here to keep --help fast.
    from remote_trainer.config import load_config
    from remote_trainer.doctor.diagnosis import diagnose, look_around

    if set_ and config is None:
        raise UserInputError.at("--set", "needs a config; write its path first")
    settings = load_config(config, set_ or []) if config else None
    diagnosis = diagnose(look_around(), settings)
    if as_json:
        print(json.dumps(diagnosis.as_json(), ensure_ascii=False))
    else:
        print(describe_diagnosis(diagnosis, str(config) if config else "the default config"))
    if not diagnosis.ok:
        raise typer.Exit(EXIT_FAILED)

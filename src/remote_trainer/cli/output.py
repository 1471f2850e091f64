"""Printing to the two streams of the terminal."""

import typer


def say(text: str) -> None:
    """Print a result to standard output."""
    typer.echo(text)


def complain(text: str) -> None:
    """Print a problem to standard error."""
    typer.echo(text, err=True)

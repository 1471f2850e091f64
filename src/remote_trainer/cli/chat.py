"""The conversation on the terminal."""

import sys
from collections.abc import Mapping
from io import TextIOWrapper

import typer

from remote_trainer.cli.output import harmless
from remote_trainer.engines.chat_model import ChatModel, MessageTooLong
from remote_trainer.records import Message
from remote_trainer.tokenization.prompt_tokenizer import TemplateRefusal


def talk(speakers: Mapping[str, ChatModel], system: str | None, temperature: float) -> None:
    """Ask, let every speaker answer in turn, until the input ends or says /exit.

    Each speaker sees only its own earlier answers. A message that cannot be answered is dropped,
    and the reason is printed.
    """
    if isinstance(sys.stdin, TextIOWrapper):  # invalid UTF-8 must not end the chat
        sys.stdin.reconfigure(errors="replace")
    start = [Message(role="system", content=system)] if system else []
    histories = {name: list(start) for name in speakers}
    typer.echo("Write a message; /reset clears the conversation, /exit or Ctrl-D quits.")
    while (message := _read_message()) is not None:
        if message == "/reset":
            histories = {name: list(start) for name in speakers}
            continue
        for name, speaker in speakers.items():
            history = histories[name]
            history.append(Message(role="user", content=message))
            try:
                answer = _show(f"{name}: ", speaker, history, temperature)
            except (TemplateRefusal, MessageTooLong) as reason:
                typer.echo(f"(no answer: {reason})")
                history.pop()
            else:
                history.append(Message(role="assistant", content=answer))


def _read_message() -> str | None:
    """The next message; None at the end."""
    while True:
        try:
            message = input("you: ").strip()
        except EOFError:
            typer.echo("")
            return None
        if message == "/exit":
            return None
        if message:
            return message


def _show(label: str, speaker: ChatModel, history: list[Message], temperature: float) -> str:
    typer.echo(label, nl=False)
    answer = ""
    for piece in speaker.reply(history, temperature):
        typer.echo(harmless(piece), nl=False)
        answer += piece
    typer.echo("")
    return answer

"""Prompts that the model's chat template refuses, and what to write instead."""

from collections.abc import Iterable

from remote_trainer.data.jsonl import SHOWN_PROBLEMS
from remote_trainer.data.places import file_of
from remote_trainer.errors import Problem
from remote_trainer.records import Message, Prompt, Row, Tools
from remote_trainer.tokenization.prompt_tokenizer import (
    FaultyTemplate,
    PromptTokenizer,
    TemplateRefusal,
)

NO_TEMPLATE = (
    "a list of messages, but the model has no chat template; "
    "write prompts as text or choose a chat model"
)
_WITHOUT_SYSTEM = "remove the system message, or write its text into the user's message"
_IN_TURNS = (
    "begin with a user turn and alternate user and assistant (join consecutive messages of the "
    "same role)"
)


class Refusals:
    """Collects the refused rows of one file; only the first ones are kept."""

    def __init__(self, prompt_tokenizer: PromptTokenizer, system_prompt: str | None) -> None:
        self._prompt_tokenizer = prompt_tokenizer
        self._system_prompt = system_prompt
        self._by_system_prompt: TemplateRefusal | None = None
        self._shown: list[Problem] = []
        self._count = 0
        self._file = ""

    def add(
        self, row: Row, prompt: Prompt, refusal: TemplateRefusal, tools: Tools | None = None
    ) -> None:
        """Record that ``prompt`` was refused: the prompt of ``row``, with the config's system
        prompt if the row has none."""
        if self._has_ours(row, prompt):
            without = self._refusal(prompt[1:], tools)
            if without is None:
                self._by_system_prompt = refusal
                return
            prompt, refusal = prompt[1:], without
        self._count += 1
        self._file = file_of(row.source)
        if len(self._shown) < SHOWN_PROBLEMS:
            advice = self._advice(prompt, tools)
            self._shown.append(Problem(row.source, f"{refusal}; {advice}"))

    def problems(self) -> Iterable[Problem]:
        """One for the system prompt, one for each of the first rows, and a count of the rest."""
        if self._by_system_prompt is not None:
            yield system_prompt_problem(self._system_prompt, self._by_system_prompt)
        yield from self._shown
        if self._count > len(self._shown):
            more = self._count - len(self._shown)
            yield Problem(self._file, f"and {more} more lines that the chat template refuses")

    def _has_ours(self, row: Row, prompt: Prompt) -> bool:
        own = isinstance(row.prompt, list) and row.prompt[0]["role"] == "system"
        return self._system_prompt is not None and isinstance(prompt, list) and not own

    def _refusal(self, prompt: Prompt, tools: Tools | None) -> TemplateRefusal | None:
        try:
            self._prompt_tokenizer.prompt_text(prompt, tools)
        except TemplateRefusal as refusal:
            return refusal
        return None

    def _advice(self, prompt: Prompt, tools: Tools | None) -> str:
        """A change with which the template renders the prompt."""
        assert isinstance(prompt, list), "only messages are rendered"
        plain = [message for message in prompt if message["role"] != "system"]
        changes: list[tuple[str, list[Message], Tools | None]] = [
            (_WITHOUT_SYSTEM, plain, tools),
            (_IN_TURNS, in_turns(prompt), tools),
            (f"{_WITHOUT_SYSTEM}; {_IN_TURNS}", in_turns(plain), tools),
            ("remove the tools", prompt, None),
        ]
        for advice, changed, with_tools in changes:
            differs = changed and (changed, with_tools) != (prompt, tools)
            if differs and self._refusal(changed, with_tools) is None:
                return advice
        return "change the messages to a form that the template accepts, or choose another model"


def in_turns(messages: list[Message]) -> list[Message]:
    """The system message, then alternating user and assistant turns, the user first."""
    system = [message for message in messages[:1] if message["role"] == "system"]
    turns: list[Message] = []
    for message in messages[len(system) :]:
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1] = {**message, "content": f"{turns[-1]['content']}\n\n{message['content']}"}
        elif turns or message["role"] == "user":
            turns.append(message)
    return [*system, *turns]


def system_prompt_problem(system_prompt: str | None, refusal: TemplateRefusal) -> Problem:
    """The template refuses the system prompt of the config."""
    return Problem(
        "data.system_prompt",
        f"{system_prompt!r}: {refusal}; remove data.system_prompt, or write its text into the "
        "user's messages",
    )


def fault_problem(fault: FaultyTemplate) -> Problem:
    """A template that renders nothing is reported once, at its own file and line."""
    return Problem(fault.where, str(fault))


def unrendered(
    rows: Iterable[Row],
    prompts: Iterable[Prompt],
    prompt_tokenizer: PromptTokenizer,
    system_prompt: str | None,
) -> list[Problem]:
    """Why some prompts cannot be rendered; ``prompts`` are the converted prompts of ``rows``."""
    refusals = Refusals(prompt_tokenizer, system_prompt)
    for row, prompt in zip(rows, prompts, strict=True):
        if isinstance(prompt, list) and not prompt_tokenizer.has_chat_template:
            return [Problem(row.source, NO_TEMPLATE)]
        try:
            prompt_tokenizer.prompt_text(prompt, row.tools)
        except FaultyTemplate as fault:
            return [fault_problem(fault)]
        except TemplateRefusal as refusal:
            refusals.add(row, prompt, refusal, row.tools)
    return list(refusals.problems())

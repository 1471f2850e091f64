"""The fixed texts that a chat template writes around the messages of a conversation.

For programs that have no Jinja, such as Ollama. They are found by rendering marks in place of
messages; a template that does more than to surround messages by fixed texts has none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from remote_trainer.records import Message
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer
from remote_trainer.tokenization.template_refusal import TemplateRefusal

_MARKS = ("qvmarkaqv", "qvmarkbqv", "qvmarkcqv")
_TEXTS = ("Which one?", 'Say "{x} & <y>".\n\nA second line.', "[1, 2]", "é 漢 🙂", "user", "0")


class NoTurns(ValueError):
    """Why a template has no fixed texts."""


@dataclass(frozen=True)
class Turns:
    """Texts between messages: of an optional system message, then user and assistant in turn."""

    start: str
    """Before the first user message, without a system message."""
    system: tuple[str, str] | None
    """Before and after a system message; None: the template takes none."""
    to_assistant: str
    """Between a user message and the answer to it."""
    to_user: str
    """Between an answer and the next user message."""
    end: str
    """After the last user message: what makes the model answer."""

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation that ends with a user message."""
        contents = [str(message["content"]) for message in messages]
        parts = [self.start]
        if messages[0]["role"] == "system":
            assert self.system is not None, "this template takes no system message"
            parts = [self.system[0], contents.pop(0), self.system[1]]
        between = (self.to_assistant, self.to_user)
        for i, content in enumerate(contents[:-1]):
            parts += [content, between[i % 2]]
        return "".join([*parts, contents[-1], self.end])


def turns_of(tokenizer: PromptTokenizer) -> Turns:
    """The texts of a tokenizer's chat template, compared with what it renders.

    Raises NoTurns.
    """
    if not tokenizer.has_chat_template:
        raise NoTurns("the tokenizer has no chat template")
    found = _find(tokenizer)
    for messages in _conversations(found.system is not None):
        if found.render(messages) != tokenizer.prompt_text(messages):
            raise NoTurns("the chat template does more than to write fixed texts around messages")
    return found


def _find(tokenizer: PromptTokenizer) -> Turns:
    try:
        start, end = _around(tokenizer, "user")
        _, to_assistant, to_user, _ = _around(tokenizer, "user", "assistant", "user")
    except TemplateRefusal as refusal:
        raise NoTurns(f"the chat template refuses a conversation: {refusal}") from refusal
    try:
        before, after, _ = _around(tokenizer, "system", "user")
    except TemplateRefusal:
        return Turns(start, None, to_assistant, to_user, end)
    return Turns(start, (before, after), to_assistant, to_user, end)


def _around(tokenizer: PromptTokenizer, *roles: str) -> list[str]:
    """The rendered text, split at the messages."""
    messages = _messages(roles, _MARKS)
    text = tokenizer.prompt_text(messages)
    parts = []
    for message in messages:
        before, mark, text = text.partition(message["content"])
        if not mark or message["content"] in text:
            raise NoTurns(f"the chat template leaves out or repeats a {message['role']} message")
        parts.append(before)
    return [*parts, text]


def _messages(roles: Sequence[str], texts: Sequence[str]) -> list[Message]:
    return [{"role": r, "content": text} for r, text in zip(roles, texts, strict=False)]


def _conversations(with_system: bool) -> Iterator[list[Message]]:
    """One to three turns, with texts that a template might treat specially."""
    roles = ("user", "assistant") * 3
    for first, length in product(range(len(_TEXTS)), (1, 3, 5)):
        texts = (*_TEXTS[first:], *_TEXTS)
        yield _messages(roles[:length], texts)
        if with_system:
            yield _messages(("system", *roles[:length]), texts)

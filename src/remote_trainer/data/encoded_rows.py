"""Rows with prompt ids, rendered on access."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import overload

from remote_trainer.data.rows import as_user_turn, with_system
from remote_trainer.records import EncodedRow, Message, Prompt, Row
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer

CACHED_ROWS = 1024
"""More than the prompts of an update, whose rows are accessed repeatedly."""


class EncodedRows(Sequence[EncodedRow]):
    """Some rows in a given order. Only their indices and the last used rows stay in memory."""

    def __init__(
        self,
        rows: Sequence[Row],
        places: Sequence[int],
        prompt_tokenizer: PromptTokenizer,
        system_prompt: str | None,
    ) -> None:
        self._rows = rows
        self._places = places
        self._prompt_tokenizer = prompt_tokenizer
        self._system_prompt = system_prompt
        self._cached = lru_cache(maxsize=CACHED_ROWS)(self._encoded)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, index: slice) -> "EncodedRows": ...
    def __getitem__(self, index: int | slice) -> "EncodedRow | EncodedRows":
        if isinstance(index, slice):
            places = self._places[index]
            return EncodedRows(self._rows, places, self._prompt_tokenizer, self._system_prompt)
        return self._cached(self._places[index])

    def by(self, prompt_tokenizer: PromptTokenizer) -> "EncodedRows":
        """The same rows, encoded with another tokenizer."""
        return EncodedRows(self._rows, self._places, prompt_tokenizer, self._system_prompt)

    def agree(self, prompt_tokenizer: PromptTokenizer, most: int) -> bool:
        """Whether another tokenizer gives the same ids for ``most`` evenly spaced rows."""
        others = self.by(prompt_tokenizer)
        places = {i * len(self) // most for i in range(most)}
        return all(self[i].prompt_ids == others[i].prompt_ids for i in places)

    def _encoded(self, place: int) -> EncodedRow:
        row = rendered(self._rows[place], self._prompt_tokenizer, self._system_prompt)
        return self._prompt_tokenizer.encode_row(row)


def rendered(row: Row, prompt_tokenizer: PromptTokenizer, system_prompt: str | None) -> Row:
    """The row with its prompt as the model gets it."""
    prompt = as_messages(row.prompt, prompt_tokenizer, system_prompt)
    return replace(row, prompt=prompt)


def as_messages(
    prompt: Prompt, prompt_tokenizer: PromptTokenizer, system_prompt: str | None
) -> Prompt:
    """Text becomes one user message for a chat model; adds the system prompt if there is none."""
    if isinstance(prompt, str) and not prompt_tokenizer.has_chat_template:
        return prompt if system_prompt is None else f"{system_prompt}\n\n{prompt}"
    return with_system(as_user_turn(prompt), system_prompt)


def unseen(row: Row, prompt_tokenizer: PromptTokenizer) -> Iterator[str]:
    """Parts of a row that the chat template does not pass to the model, in words."""
    if isinstance(row.prompt, str):
        if row.tools:
            yield "the key 'tools' (the model has no chat template)"
        return
    text = prompt_tokenizer.prompt_text(row.prompt, row.tools)
    if row.tools and prompt_tokenizer.prompt_text(row.prompt) == text:
        yield "the key 'tools'"
    for message in row.prompt:
        if any(name not in text for name in _called(message)):
            yield "'tool_calls' of the assistant"
        elif message["role"] not in ("user", "assistant") and not _occurs_in(message, text):
            yield f"messages with the role {message['role']!r}"


def _called(message: Message) -> list[str]:
    return [call["function"]["name"] for call in message.get("tool_calls", ())]


def _occurs_in(message: Message, text: str) -> bool:
    """Whether the start of a message occurs in the text; templates may trim or escape it."""
    words = message["content"].split()
    return not words or words[0].strip("\"'{}[]:,") in text

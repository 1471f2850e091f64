"""Converts the object of a line to a row: prompt, answers and tools."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remote_trainer.data.jsonl import RowFault
from remote_trainer.data.messages import as_tools, read_messages, read_tools, split_answer
from remote_trainer.records import Message, Prompt, Row, Tools
from remote_trainer.references import accepted_answers, answer_fault, final_reference

# TRL overwrites or drops columns with these names; the last two are our own.
RESERVED = frozenset(
    {"completion", "completion_ids", "completions", "prompts", "trainer_state", "log_extra"}
    | {"log_metric", "environments", "prompt_ids"}
)
DEFAULT_PROMPT, CONVERSATION = "prompt", "messages"
PLAIN_KEYS = 2  # role and content


@dataclass(frozen=True)
class RowFormat:
    """Which keys of a line hold what."""

    prompt_field: str = DEFAULT_PROMPT
    answer_fields: tuple[str, ...] = ()
    """Keys of reference answers; a conversation's final assistant turn is used for all of them."""
    checked: tuple[str, ...] = ()
    """Those of them in which an invalid value is an error."""
    also_prompt: bool = False
    """A line without ``prompt_field`` may have its prompt in the default key."""
    answer_pattern: str | None = None
    """Regular expression with one group: the final answer in a longer reference answer."""

    def prompt_key(self, value: Mapping[str, Any]) -> str:
        """The key of the prompt; ``messages`` can replace the default one. Raises RowFault."""
        wanted = [self.prompt_field]
        if self.also_prompt:
            wanted.append(DEFAULT_PROMPT)
        if DEFAULT_PROMPT in wanted:
            wanted.append(CONVERSATION)
        # Tables with columns for both formats have null in the one that a row does not use.
        for name in wanted:
            if value.get(name) is not None:
                return name
        if self.prompt_field in value:
            return self.prompt_field
        keys = ", ".join(sorted(value)) or "none"
        raise RowFault(
            f"{self.prompt_field!r} is missing; found keys: {keys} "
            "(set data.prompt_field to the right one)"
        )

    def read(self, value: Mapping[str, Any], where: str) -> Row:
        """The row of one line; raises RowFault with all problems."""
        faults = [f"{field!r} {why}" for field in self.checked if (why := _fault(value, field))]
        if not RESERVED.isdisjoint(value):
            faults += [f"{name!r} is a reserved key; rename it" for name in RESERVED & set(value)]
        prompt: Prompt = ""
        fields: dict[str, Any] = {}
        tools = None
        try:
            prompt, fields = self._prompt_and_fields(value)
        except RowFault as fault:
            faults.append(str(fault))
        try:
            tools = _tools(value)
        except RowFault as fault:
            faults.append(f"'tools' {fault}")
        if faults:
            raise RowFault("; ".join(sorted(faults)))
        return Row(prompt, fields, where, tools, self.answer_pattern)

    def _prompt_and_fields(self, value: Mapping[str, Any]) -> tuple[Prompt, dict[str, Any]]:
        key = self.prompt_key(value)
        fields = {name: each for name, each in value.items() if name != key}
        try:
            prompt, reply = _prompt(value[key])
        except RowFault as fault:
            raise RowFault(f"{key!r} {fault}") from None
        for field in self.answer_fields if reply is not None else ():
            if not accepted_answers(fields.get(field)):
                fields[field] = reply
        if self.answer_pattern is not None:
            fields |= self._final_answers(fields, self.answer_pattern)
        return prompt, fields

    def _final_answers(self, fields: Mapping[str, Any], pattern: str) -> dict[str, Any]:
        """The final answers of the fields that hold reference answers; raises RowFault."""
        found = {}
        for field in (name for name in self.answer_fields if name in fields):
            try:
                found[field] = final_reference(fields[field], pattern)
            except ValueError as fault:
                raise RowFault(f"{field!r} {fault}") from None
        return found


def _prompt(value: Any) -> tuple[Prompt, str | None]:
    """(the prompt, the text of a final assistant turn, if there is one)."""
    if isinstance(value, str):
        if not value.strip():
            raise RowFault("is empty; write a string")
        return value, None
    if not isinstance(value, list) or not value:
        raise RowFault(f"is a {type(value).__name__}; write a string or a list of messages")
    return split_answer(read_messages(value))


def _tools(value: Mapping[str, Any]) -> Tools | None:
    return read_tools(value["tools"]) if "tools" in value else as_tools(value.get("functions"))


def _fault(value: Mapping[str, Any], field: str) -> str | None:
    return answer_fault(value[field]) if field in value else None


def with_system(messages: list[Message], system_prompt: str | None) -> list[Message]:
    """Adds the system prompt unless there is one already."""
    if system_prompt is None or messages[0]["role"] in ("system", "developer"):
        return messages
    return [Message(role="system", content=system_prompt), *messages]


def as_user_turn(prompt: Prompt) -> list[Message]:
    """Text becomes a user message."""
    return [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt


def fingerprint(row: Row, system_prompt: str | None) -> int:
    """64-bit hash of everything that a chat template sees of a row.

    Two of a million different rows have the same hash with a probability of 3e-8.
    """
    messages = with_system(as_user_turn(row.prompt), system_prompt)
    text = "".join(f"{each['role']}:{len(each['content'])}:{each['content']}" for each in messages)
    if row.tools or any(len(each) > PLAIN_KEYS for each in messages):
        text += _ENCODER.encode([messages, row.tools])
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def shape(row: Row) -> tuple[Any, ...]:
    """What a refusal usually depends on: the order of roles, and which keys are set."""
    if isinstance(row.prompt, str):
        return ("text", row.tools is not None)
    turns: Sequence[Any] = [(each["role"], *sorted(each)) for each in row.prompt]
    return (*turns, row.tools is not None)


_ENCODER = json.JSONEncoder(sort_keys=True)

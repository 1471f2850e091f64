"""Converts the object of a line to a row: prompt, answers and tools."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remote_trainer.data.jsonl import RowFault
from remote_trainer.data.messages import as_tools, read_messages, read_tools, split_answer
from remote_trainer.field_paths import NoValueError, find, value_at
from remote_trainer.records import Message, Prompt, Row, Tools
from remote_trainer.references import accepted_answers, answer_fault, final_reference

COMPLETION = "completion"
# TRL overwrites or drops columns with these names; the last two are our own.
RESERVED = frozenset(
    {COMPLETION, "completion_ids", "completions", "prompts", "trainer_state", "log_extra"}
    | {"log_metric", "environments", "prompt_ids"}
)
DEFAULT_PROMPT, CONVERSATION = "prompt", "messages"
JOINED, BETWEEN = "+", "\n\n"
"""``instruction+input`` is a prompt from the texts of two keys, with an empty line between."""
PLAIN_KEYS = 2  # role and content
_WRITE_LIST = "write a list of messages (CSV cells hold only text; use JSONL or parquet)"


@dataclass(frozen=True)
class RowFormat:
    """Which keys of a row hold what; a key may be a path (see `value_at`)."""

    prompt_field: str = DEFAULT_PROMPT
    """Several keys may be joined with ``+``."""
    answer_fields: tuple[str, ...] = ()
    """Keys of reference answers; a conversation's final assistant turn is used for all of them."""
    checked: tuple[str, ...] = ()
    """Those of them in which an invalid value is an error."""
    also_prompt: bool = False
    """A row without ``prompt_field`` may have its prompt in the default key."""
    prompt_advice: str = "set data.prompt_field to the right one"
    """What to do if a row has no prompt."""
    answer_advice: str = "set reward.answer_field"
    """What to do if no row has an answer."""
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
            if _prompt_at(value, name) is not None:
                return name
        if self.prompt_field in value:
            return self.prompt_field
        keys = ", ".join(sorted(value)) or "none"
        missing = _missing(value, self.prompt_field)
        raise RowFault(f"{missing}; found keys: {keys} ({self.prompt_advice})")

    def read(self, value: Mapping[str, Any], where: str) -> Row:
        """The row of one line; raises RowFault with all problems."""
        faults = [why for field in self.checked if (why := _fault(value, field))]
        if not RESERVED.isdisjoint(value):
            # Our trainer gives TRL no columns, so an answer may have this name.
            reserved = (RESERVED & set(value)) - ({COMPLETION} & set(self.answer_fields))
            faults += [f"{name!r} is a reserved key; rename it" for name in reserved]
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
        found = _prompt_at(value, key)
        if key == CONVERSATION and isinstance(found, str) and found.lstrip().startswith("["):
            raise RowFault(f"{key!r} is JSON in a text; {_WRITE_LIST}")
        try:
            prompt, reply = _prompt(found)
        except RowFault as fault:
            raise RowFault(f"{key!r} {fault}") from None
        for field in self.answer_fields if reply is not None else ():
            if not accepted_answers(find(fields, field)):
                fields[field] = reply
        if self.answer_pattern is not None:
            fields |= self._final_answers(fields, self.answer_pattern)
        return prompt, fields

    def _final_answers(self, fields: Mapping[str, Any], pattern: str) -> dict[str, Any]:
        """The final answers of the fields that hold reference answers; raises RowFault."""
        found = {}
        values = ((field, find(fields, field)) for field in self.answer_fields)
        for field, value in values:
            if value is None:
                continue
            try:
                found[field] = final_reference(value, pattern)
            except ValueError as fault:
                raise RowFault(f"{field!r} {fault}") from None
        return found


def _prompt_at(value: Mapping[str, Any], name: str) -> Any:
    """The prompt under a key, at a path, or joined from several keys; None if there is none.

    The first of several keys must hold a text; blank and missing ones after it are left out.
    """
    if name in value or JOINED not in name:
        return find(value, name)
    parts = [find(value, part) for part in name.split(JOINED)]
    wrong = [type(each).__name__ for each in parts if not isinstance(each, str | None)]
    if wrong:
        raise RowFault(f"{name!r} joins texts, but one is a {wrong[0]}; write a string")
    if not parts[0] or not parts[0].strip():
        return parts[0]
    return BETWEEN.join(text for text in parts if text and text.strip())


def _missing(value: Mapping[str, Any], name: str) -> str:
    """Which part of a prompt field is missing."""
    try:
        value_at(value, name if name in value else name.partition(JOINED)[0])
    except NoValueError as missing:
        return f"{name}: {missing}" if "." in name else f"{name!r} is missing"
    return f"{name!r} is null"


def _prompt(value: Any) -> tuple[Prompt, str | None]:
    """(the prompt, the text of a final assistant turn, if there is one)."""
    if isinstance(value, str):
        if not value.strip():
            raise RowFault("is empty; write a string")
        return value, None
    if not isinstance(value, list) or not value:
        found = "null" if value is None else f"a {type(value).__name__}"
        raise RowFault(f"is {found}; write a string or a list of messages")
    return split_answer(read_messages(value))


def _tools(value: Mapping[str, Any]) -> Tools | None:
    return read_tools(value["tools"]) if "tools" in value else as_tools(value.get("functions"))


def _fault(value: Mapping[str, Any], field: str) -> str | None:
    """Why a row cannot have an answer in ``field``; a missing answer is not an error."""
    try:
        why = answer_fault(value_at(value, field))
    except NoValueError as missing:
        return None if missing.fits else f"{field}: {missing}"
    return f"{field!r} {why}" if why else None


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

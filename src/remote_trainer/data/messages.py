"""Converts conversations in common formats to the form that chat templates expect."""

from typing import Any

from remote_trainer.data.jsonl import RowFault, parse_value, shown
from remote_trainer.records import Message, Tools

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
ENDS = ("user", "tool", "function")
"""Roles that the model answers."""
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Type of a content part -> its key that holds the text."""
MEDIA = ("audio", "images", "image", "videos", "video")
FORM = '{"role": ..., "content": ...}'


def read_messages(value: Any) -> list[Message]:
    """A list of messages, each with ``role`` and a text as ``content``; raises RowFault.

    Text parts are joined, as templates do. Tool call arguments given as JSON text become objects,
    because templates serialise them again. Other keys with a value are kept for templates that use
    them.
    """
    return [_message(each) for each in value]


def split_answer(messages: list[Message]) -> tuple[list[Message], str | None]:
    """(turns before a final assistant turn, its text); the text is None if the conversation ends
    with another role, or if that turn is empty or has ``weight`` 0.

    Raises RowFault if the rest does not end with a turn to answer.
    """
    answer = None
    if messages[-1]["role"] == "assistant":
        *messages, last = messages
        if not messages:
            raise RowFault("has no turn before the assistant turn; begin with a user turn")
        if messages[-1]["role"] == "assistant":
            raise RowFault("ends with two assistant turns; join them into one")
        answer = None if last.get("weight") == 0 else last["content"]
    if messages[-1]["role"] not in ENDS:
        raise RowFault(f"ends with the role {messages[-1]['role']}; end with a user message")
    prompt = [{key: each[key] for key in each if key != "weight"} for each in messages]
    return prompt, answer if answer and answer.strip() else None


def read_tools(value: Any) -> Tools | None:
    """Function definitions for the template; None if there are none; raises RowFault."""
    if isinstance(value, str) and value.strip():
        value = _decoded(value)
    if value is None or value in ("", []):
        return None
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise RowFault(
            f"is {shown(value)}; write a list of function definitions, or rename the key if it "
            "means something else"
        )
    return value


def as_tools(functions: Any) -> Tools | None:
    """The old key ``functions`` in the current format; None if it holds something else."""
    if not isinstance(functions, list) or not functions:
        return None
    if not all(isinstance(each, dict) and "name" in each for each in functions):
        return None
    return [{"type": "function", "function": each} for each in functions]


def _message(value: Any) -> Message:
    if not isinstance(value, dict) or "role" not in value:
        raise RowFault(f"has the message {shown(value)}; write {FORM}")
    if value["role"] not in ROLES:
        raise RowFault(
            f"has the role {shown(value['role'])}; write system, user or assistant (or developer, "
            "tool, function)"
        )
    message = {key: each for key, each in value.items() if each is not None and each != []}
    for kind in MEDIA:
        if kind in message:
            raise RowFault(f"has {kind!r}; only text is supported")
    if "function_call" in message:
        call = {"type": "function", "function": message.pop("function_call")}
        message.setdefault("tool_calls", [call])
    if "tool_calls" in message:
        message["tool_calls"] = _tool_calls(message["tool_calls"])
    message["content"] = _content(value, message)
    message.pop("refusal", None)
    return message


def _content(value: dict[str, Any], message: Message) -> str:
    """The text of a message; a tool call needs none, and a refusal counts as text."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_part(each) for each in content)
    if content is not None:
        raise RowFault(f"has the content {shown(content)}; write a string")
    if isinstance(message.get("refusal"), str):
        return str(message["refusal"])
    if "tool_calls" in message or value.get("content") == []:
        return ""
    if "content" in value:
        raise RowFault("has the content null; write a string")
    raise RowFault(f"has the message {shown(value)}; write {FORM}")


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in TEXT_PARTS:
        found = shown(part) if kind is None else f"of the type {shown(kind)}"
        raise RowFault(f"has a content part {found}; only text parts are supported")
    text = part.get(TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise RowFault(f"has the content part {shown(part)} without text; add its text")
    return text


def _tool_calls(calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not all(map(_is_call, calls)):
        raise RowFault(
            f"has the tool_calls {shown(calls)}; write a list of "
            '{"type": "function", "function": {"name": ..., "arguments": ...}}'
        )
    return [{**call, "function": _with_arguments(call["function"])} for call in calls]


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _with_arguments(function: dict[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return function
    value = _decoded(arguments)
    return {**function, "arguments": value} if isinstance(value, dict) else function


def _decoded(text: str) -> Any:
    """The JSON value in a text, or the text if it is not JSON."""
    try:
        return parse_value(text.encode("utf-8"))
    except RowFault:
        return text

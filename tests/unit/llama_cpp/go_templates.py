"""The part of Go's text/template that a Modelfile of ours uses, and what Ollama does around it.

Written from the documentation of both, to have a second opinion on what a template renders.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, str]


def ollama_renders(template: str, messages: Sequence[Message]) -> str:
    """The prompt of a conversation in Ollama, without the BOS that llama.cpp adds."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            joined = f"{merged[-1]['content']}\n\n{message['content']}"
            merged[-1] = {"role": message["role"], "content": joined}
        else:
            merged.append(dict(message))
    system = "\n\n".join(each["content"] for each in messages if each["role"] == "system")
    tokens = iter(re.split(r"\{\{(.*?)\}\}", template, flags=re.DOTALL))
    body, stopped = _block(tokens)
    assert stopped is None
    return "".join(_run(body, {"System": system, "Messages": merged}))


def _block(tokens: Iterator[str]) -> tuple[list[Any], str | None]:
    """Nodes up to ``else``, ``end`` or the end of the text. re.split gives text and action in
    turn, so a block begins with a text."""
    nodes: list[Any] = []
    for text in tokens:
        nodes.append(("text", text))
        action = next(tokens, None)
        if action is None:
            return nodes, None
        action = action.strip()
        if action.split()[0] in ("else", "end"):
            return nodes, action
        if action.startswith("if "):
            nodes.append(_branch(action.removeprefix("if "), tokens))
        elif action.startswith("range "):
            inner, stopped = _block(tokens)
            assert stopped == "end"
            assert action == "range $i, $m := .Messages"
            nodes.append(("range", inner))
        else:
            nodes.append(("action", action))
    raise AssertionError("a template ends with a text")


def _branch(condition: str, tokens: Iterator[str]) -> tuple[Any, ...]:
    inner, stopped = _block(tokens)
    if stopped is None or stopped == "end":
        return ("if", condition, inner, [])
    if stopped == "else":
        other, stopped = _block(tokens)
        assert stopped == "end"
        return ("if", condition, inner, other)
    return ("if", condition, inner, [_branch(stopped.removeprefix("else if "), tokens)])


def _run(nodes: Sequence[Any], names: dict[str, Any]) -> Iterator[str]:
    for kind, *parts in nodes:
        if kind == "text":
            yield parts[0]
        elif kind == "range":
            for i, message in enumerate(names["Messages"]):
                yield from _run(parts[0], {**names, "$i": i, "$m": message})
        elif kind == "if":
            condition, inner, other = parts
            yield from _run(inner if _holds(condition, names) else other, names)
        elif parts[0].startswith("$last :="):
            assert parts[0] == "$last := eq (len (slice $.Messages $i)) 1"
            names["$last"] = len(names["Messages"][names["$i"] :]) == 1
        else:
            yield {".System": names["System"], "$m.Content": names.get("$m", {}).get("content")}[
                parts[0]
            ]


def _holds(condition: str, names: dict[str, Any]) -> bool:
    if condition == ".System":
        return bool(names["System"] != "")
    if condition.startswith("not "):
        return not _holds(condition.removeprefix("not "), names)
    if condition == "$last":
        return bool(names["$last"])
    found = re.fullmatch(r'eq \$m\.Role "(\w+)"', condition)
    assert found is not None, condition
    return bool(names["$m"]["role"] == found[1])


def modelfile_commands(text: str) -> dict[str, list[str]]:
    """Command (``PARAMETER stop``: two words) -> arguments, as Ollama's parser reads them."""
    found: dict[str, list[str]] = {}
    pattern = r'(#[^\n]*|PARAMETER \w+|[A-Z]+)(?: ("""(.*?)"""|"(.*?)"|([^\n]*)))?\n'
    place = 0
    for match in re.finditer(pattern, text, flags=re.DOTALL):
        assert match.start() == place, text[place:]
        place = match.end()
        if not match[1].startswith("#"):
            value = next(each for each in match.groups()[2:] if each is not None)
            found.setdefault(match[1], []).append(value)
    assert place == len(text)
    return found

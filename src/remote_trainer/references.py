"""Reference answers of a row: a string, a number, true or false, or a list of these."""

import json
from numbers import Integral, Real
from typing import Any

from remote_trainer.final_answer import last_group


def accepted_answers(value: Any) -> tuple[str, ...]:
    """Every accepted answer as text, each once, in the order given; none where there is none.

    Numbers and booleans are spelled as in JSON: 5 is "5", 5.0 is "5.0", true is "true". Null, blank
    text, NaN and anything that `answer_fault` names count as no answer.
    """
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    if isinstance(value, list | tuple):
        texts = (_spelled(item) for item in value)
        return tuple(dict.fromkeys(text for text in texts if text is not None and text.strip()))
    text = _spelled(value)
    return () if text is None else (text,)


def answer_fault(value: Any) -> str | None:
    """Why a value cannot be an answer, or None; a missing answer is not an error."""
    items = value if isinstance(value, list) else [value]
    wrong = next((item for item in items if isinstance(item, dict | list)), None)
    if wrong is None:
        return None
    found = json.dumps(wrong, ensure_ascii=False)
    found = found if len(found) <= 80 else f"{found[:77]}..."
    holds = "holds" if isinstance(value, list) else "is"
    return f"{holds} {found}; write a string, a number, true or false, or a list of such answers"


def final_reference(value: Any, pattern: str) -> Any:
    """A reference with each text replaced by its final answer: the group of the last match.

    Numbers, booleans and blank texts stay as they are. Raises ValueError, with text to follow the
    field's name, for a text that does not match.
    """
    if isinstance(value, list):
        return [final_reference(item, pattern) for item in value]
    if not isinstance(value, str) or not value.strip():
        return value
    found = last_group(pattern, value)
    if found is None:
        shown = value if len(value) <= 80 else f"...{value[-77:]}"
        raise ValueError(
            f"has no match of data.answer_pattern {pattern!r}: found {shown!r}; change the answer "
            "or the pattern"
        )
    return found


def is_spelled_out(value: Any) -> bool:
    """Whether an answer is a number or a boolean, alone or in a list."""
    items = value if isinstance(value, list) else [value]
    return any(not isinstance(item, str) and _spelled(item) is not None for item in items)


def _spelled(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        number = float(value)
        return None if number != number else json.dumps(number)
    return None

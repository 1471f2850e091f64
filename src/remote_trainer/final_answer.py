"""The final answer of a text: behind the reasoning, where it is marked, or its last number."""

import re
import unicodedata
from decimal import Decimal

THINKING_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))

# Thousands are separated by commas. No digit of a word (CO2) or of a version (3.14.15) counts.
_NUMBER = (
    r"(?:(?<![A-Za-z\d)])[-+])?"
    r"(?<![A-Za-z_\d])(?<!\d\.)"
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+)"
    r"(?:[eE][-+]?\d{1,3}(?![A-Za-z\d]))?"
)
_ANYWHERE = re.compile(_NUMBER)
_ALONE = re.compile(rf"[$€£¥]?\s*({_NUMBER})\s*%?\.?")
_HASHES = re.compile(r"####\s*([^#\n]*[^#\s])\s*\Z")
_NAMED = re.compile(r"\banswer(?:\s+is\b|\s*:)[\s:*]*", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:text|textbf|mathrm)\{([^{}]*)\}")
_BOXES = ("\\boxed{", "\\fbox{")


def final_answer(text: str, reference: str = "", pattern: str | None = None) -> str:
    """What a completion is judged by: its stated answer (`stated_answer`), or else the rest of the
    line after the last "answer is" or "answer:", or else everything behind the last thinking block.
    """
    stated, whole = stated_answer(text, reference, pattern), behind_thinking(text)
    return (_named(whole) or whole) if stated == whole and not _named(reference) else stated


def stated_answer(text: str, reference: str = "", pattern: str | None = None) -> str:
    """The answer that a text marks, or else everything behind the last thinking block.

    A mark is, in this order, a match of ``pattern`` (its group counts), ``\\boxed{...}``, or what
    stands behind ``####`` in the last line; of several the last one counts. A ``reference`` that
    has a mark itself is compared with everything.
    """
    answer = behind_thinking(text)
    if pattern and (found := last_group(pattern, answer)):
        return found
    return answer if _marked(reference) else _marked(answer) or answer


def matched(text: str, pattern: str | None) -> str:
    """The answer that ``pattern`` finds in a text, or else the text."""
    return (pattern and last_group(pattern, text)) or text


def behind_thinking(text: str) -> str:
    """The text behind the last closed thinking block; empty if a block is left open."""
    for opening, closing in THINKING_TAGS:
        opened, closed = text.rfind(opening), text.rfind(closing)
        if opened > closed:
            return ""
        if closed >= 0:
            return text[closed + len(closing) :]
    return text


def last_group(pattern: str | re.Pattern[str], text: str) -> str | None:
    """The first group of the last match, stripped; None without a match or if it is blank."""
    found = list(re.finditer(pattern, text))
    return ((found[-1][1] or "").strip() or None) if found else None


def number_of(text: str) -> Decimal | None:
    """The number that the whole text is, with a currency sign or % perhaps; None for other texts.

    "1,234" is 1234.
    """
    found = _ALONE.fullmatch(_plain(text).strip())
    return _decimal(found[1]) if found else None


def last_number(text: str) -> Decimal | None:
    """The last number in a text; None if there is none."""
    found = _ANYWHERE.findall(_plain(text))
    return _decimal(found[-1]) if found else None


def same_number(text: str, other: str) -> bool:
    """Whether both texts are the same number ("1,234" and "1234")."""
    number = number_of(text)
    return number is not None and number == number_of(other)


def _marked(text: str) -> str | None:
    return _boxed(text) or last_group(_HASHES, text)


def _named(text: str) -> str:
    places = [found.end() for found in _NAMED.finditer(text)]
    return text[places[-1] :].partition("\n")[0].strip() if places else ""


def _boxed(text: str) -> str | None:
    """The content of the last box, without the braces of LaTeX texts in it; None if it is blank or
    never closed."""
    box = max(_BOXES, key=text.rfind)
    start, depth = text.rfind(box) + len(box), 1
    for end in range(start, len(text)) if box in text else ():
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return _TEXT.sub(r"\1", text[start:end]).strip() or None
    return None


def _plain(text: str) -> str:
    """Digits and signs as ASCII has them, as far as Unicode says so."""
    return unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-")


def _decimal(digits: str) -> Decimal:
    return Decimal(digits.replace(",", ""))

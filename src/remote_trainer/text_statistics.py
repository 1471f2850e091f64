"""What can be seen in completions without a model: words, variety, copies, loops."""

import unicodedata
import zlib
from collections.abc import Hashable, Sequence

import regex

LEAST_TRIGRAMS = 100
SHORT_TOKENS = 2
LOOP_WINDOW_WORDS, LOOP_REPEATS = 10, 10  # the rule of RLPR (arXiv 2506.18254)
LOOP_WINDOW_CHARACTERS = 40  # about ten words of a script without blanks
LOOP_COMPRESSION = 2.4  # text that shrinks more than this repeats itself (Whisper's default)
MOST_BYTES = 1.5  # of UTF-8 per character; Vietnamese has 1.35, Greek and Russian 1.8
ENDLESS_CHARACTERS, ENDLESS_REPEATS = 40, 4

# Letters and marks of scripts that set no blanks between words: Chinese, Japanese, and what Unicode
# says needs a dictionary to find words (line break class SA): Thai, Lao, Khmer, Burmese and others.
_GLUED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Line_Break=SA}\u30FC\uFF70\uFF9E\uFF9F"
_KATAKANA = r"[\p{Katakana}\u30FC\uFF70][\p{Katakana}\u30FC\uFF70\uFF9E\uFF9F\p{M}]*"
_GLUED_LETTER = regex.compile(rf"[{_GLUED}]")
_PARTS = regex.compile(rf"{_KATAKANA}|(?=[{_GLUED}])\X|[^{_GLUED}]+")
# Blanks that have no width, and wide punctuation but for what stands inside a wide number.
_BORDERS = regex.compile(
    r"[\u200B\u2060\uFEFF\u3001-\u3003\u3008-\u3011\u3014-\u301B\u30FB"
    r"\uFF01\uFF08\uFF09\uFF0C\uFF1B\uFF1F\uFF3B\uFF3D\uFF5B\uFF5D\uFF61-\uFF65]"
    r"|(?<!\d)\uFF1A|\uFF1A(?!\d)"
)


def distinct_3(texts: Sequence[str]) -> float | None:
    """Share of different word trigrams over all texts, 0 to 1; None under 100 trigrams."""
    trigrams = []
    for text in texts:
        words = split_words(text)
        trigrams += list(zip(words, words[1:], words[2:], strict=False))
    if len(trigrams) < LEAST_TRIGRAMS:
        return None
    return len(set(trigrams)) / len(trigrams)


def duplicate_share(texts: Sequence[str], questions: Sequence[Hashable]) -> float:
    """Share of texts that also answer a different question in the same words, 0 to 1."""
    asked: dict[str, set[Hashable]] = {}
    for text, question in zip(texts, questions, strict=True):
        asked.setdefault(text, set()).add(question)
    return _share([len(asked[text]) > 1 for text in texts])


def short_share(lengths: Sequence[int], references: Sequence[int | None]) -> float:
    """Share of texts shorter than half their reference, 0 to 1; without a reference those of at
    most two tokens. Lengths are in tokens without end-of-sequence."""
    return _share(
        [
            length <= SHORT_TOKENS if reference is None else 2 * length < reference
            for length, reference in zip(lengths, references, strict=True)
        ]
    )


def length_to_reference(lengths: Sequence[int], references: Sequence[int | None]) -> float | None:
    """Mean length of the texts that have a reference over the mean length of those references."""
    known = [(n, r) for n, r in zip(lengths, references, strict=True) if r]
    return sum(n for n, _ in known) / sum(r for _, r in known) if known else None


def loop_share(texts: Sequence[str]) -> float:
    """Share of texts that repeat themselves, 0 to 1."""
    return _share([loops(text) for text in texts])


def loops(text: str) -> bool:
    """One window of ten words (40 characters of a script without blanks) occurs ten times, or zlib
    shrinks the text more than 2.4 times."""
    raw = _narrow(text)
    return _repeats_a_window(text) or len(raw) / len(zlib.compress(raw)) > LOOP_COMPRESSION


def _narrow(text: str) -> bytes:
    """UTF-8, or where most characters take several bytes of it, a number for each in one byte or
    two: honest Thai, Burmese or Hindi shrinks 2.5 times in UTF-8, for its first bytes alone."""
    raw = text.encode()
    if len(raw) < MOST_BYTES * len(text):
        return raw
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(character, len(numbers)) for character in text]
    width = 1 if len(numbers) <= 256 else 2 if len(numbers) <= 65536 else 4
    return b"".join(place.to_bytes(width, "little") for place in places)


def endless(text: str) -> bool:
    """The text ends in one phrase said over and over: a loop beyond doubt.

    One window of ten words occurs ten times, or the last 40 characters or more, and at least half
    of the text, are a phrase repeated four times. Stricter than `loops`, because zlib also shrinks
    honest tables and JSON, and this rule decides over a reward.
    """
    text = text.strip()
    least = max(ENDLESS_CHARACTERS, len(text) // 2)
    periods = range(1, len(text) // ENDLESS_REPEATS + 1)
    return _repeats_a_window(text) or any(
        _periodic_tail(text, period) >= max(least, ENDLESS_REPEATS * period) for period in periods
    )


def _periodic_tail(text: str, period: int) -> int:
    """How many characters at the end repeat with this period."""
    place = len(text) - period - 1
    while place >= 0 and text[place] == text[place + period]:
        place -= 1
    return len(text) - 1 - place


def _repeats_a_window(text: str) -> bool:
    words = split_words(text)
    size = _window(words)
    windows: dict[tuple[str, ...], int] = {}
    for start in range(len(words) - size + 1):
        window = tuple(words[start : start + size])
        windows[window] = windows.get(window, 0) + 1
    return max(windows.values(), default=0) >= LOOP_REPEATS


def _window(words: Sequence[str]) -> int:
    """Words of a window that is looked for: a character of a script without blanks is less than a
    word, so most of a text in one makes the window longer."""
    glued = sum(map(is_glued, words))
    return LOOP_WINDOW_CHARACTERS if 2 * glued > len(words) else LOOP_WINDOW_WORDS


def words_of(text: str) -> tuple[str, ...]:
    """Words after NFKC, lower case and trimmed punctuation; a sign in front of a digit stays.

    What stands between blanks is a word; of scripts without blanks see `split_words`. A text of
    nothing but punctuation keeps it: "*" and "?" are different answers.
    """
    plain = unicodedata.normalize("NFKC", text)
    if _has_glued(plain):
        plain = unicodedata.normalize("NFKC", _BORDERS.sub(" ", text))
    words = tuple(split_words(plain.lower()))
    return tuple(trimmed for word in words if (trimmed := _trim(word))) or words


def split_words(text: str) -> list[str]:
    """What stands between blanks. Scripts that write none are split further: each character with
    its marks is a word, and so is a run of Katakana and whatever stands between such scripts."""
    if not _has_glued(text):
        return text.split()
    return [part for token in text.split() for part in _PARTS.findall(token)]


def is_glued(word: str) -> bool:
    """Whether a word of `split_words` may go on without a blank: it is a character of Chinese,
    Japanese, Thai, Khmer, Lao, Burmese or another script of that kind."""
    return _GLUED_LETTER.match(word) is not None


def _has_glued(text: str) -> bool:
    return not text.isascii() and _GLUED_LETTER.search(text) is not None


def _trim(word: str) -> str:
    start, end = 0, len(word)
    while end > start and _is_punctuation(word[end - 1]):
        end -= 1
    while start < end and _is_punctuation(word[start]):
        if word[start] == "-" and start + 1 < end and word[start + 1].isdigit():
            break
        start += 1
    return word[start:end]


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character).startswith("P") or character == "`"


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0

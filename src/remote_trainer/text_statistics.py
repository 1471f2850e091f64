"""What can be seen in completions without a model: variety, copies, loops."""

import unicodedata
import zlib
from collections.abc import Hashable, Sequence

LEAST_TRIGRAMS = 100
SHORT_TOKENS = 2
LOOP_WINDOW_WORDS, LOOP_REPEATS = 10, 10  # the rule of RLPR (arXiv 2506.18254)
LOOP_COMPRESSION = 2.4  # text that shrinks more than this repeats itself (Whisper's default)
ENDLESS_CHARACTERS, ENDLESS_REPEATS = 40, 4


def distinct_3(texts: Sequence[str]) -> float | None:
    """Share of different word trigrams over all texts, 0 to 1; None under 100 trigrams."""
    trigrams = []
    for text in texts:
        words = text.split()
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
    """One window of ten words occurs ten times, or zlib shrinks the text more than 2.4 times."""
    raw = text.encode()
    return _repeats_a_window(text) or len(raw) / len(zlib.compress(raw)) > LOOP_COMPRESSION


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
    words = text.split()
    windows: dict[tuple[str, ...], int] = {}
    for start in range(len(words) - LOOP_WINDOW_WORDS + 1):
        window = tuple(words[start : start + LOOP_WINDOW_WORDS])
        windows[window] = windows.get(window, 0) + 1
    return max(windows.values(), default=0) >= LOOP_REPEATS


def words_of(text: str) -> tuple[str, ...]:
    """Words after NFKC, lower case and trimmed punctuation; a sign in front of a digit stays.

    A text of nothing but punctuation keeps it: "*" and "?" are different answers.
    """
    words = tuple(unicodedata.normalize("NFKC", text).lower().split())
    return tuple(trimmed for word in words if (trimmed := _trim(word))) or words


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

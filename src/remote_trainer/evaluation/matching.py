"""Is a final answer right? The reference must stand in it, and no rival answer may; a number is
judged by the last number."""

from collections.abc import Iterable, Sequence

from remote_trainer.final_answer import last_number, number_of, same_number
from remote_trainer.text_statistics import is_glued, words_of

Words = tuple[str, ...]
Span = tuple[int, int]
"""First word, and the one behind the last."""


def is_right(answer: str, reference: str, rivals: Iterable[Words]) -> bool:
    """Whether the reference stands in the answer as whole words and no rival does.

    If the reference is a number, whether the last number of the answer equals it: numbers have no
    rivals, because the way to an answer names others ("4 times 3 is 12").
    Words are compared after NFKC, lower case and trimmed punctuation; in scripts without blanks
    each character is one. A rival inside the reference itself ("Delhi" in "New Delhi") is no rival.
    """
    number = number_of(reference)
    if number is not None:
        return last_number(answer) == number
    words, wanted = words_of(answer), words_of(reference)
    spans = _spans(words, wanted)
    if not spans:
        return False
    said = [span for rival in rivals if rival != wanted for span in _spans(words, rival)]
    read = _as_read(words, [*spans, *said])
    covered = {place for span in read & set(spans) for place in range(*span)}
    return bool(covered) and all(set(range(*span)) <= covered for span in read & set(said))


def is_exact(answer: str, reference: str) -> bool:
    """Whether the whole answer is the reference, compared by words, numbers by their value."""
    return words_of(answer) == words_of(reference) or same_number(answer, reference)


def rivals_by_kind(kinds: Sequence[str | None], references: Sequence[str]) -> dict[str, set[Words]]:
    """All answers of each kind; rows without a kind have no rivals."""
    rivals: dict[str, set[Words]] = {}
    for kind, reference in zip(kinds, references, strict=True):
        if kind is not None:
            rivals.setdefault(kind, set()).add(words_of(reference))
    return rivals


def _spans(words: Words, wanted: Words) -> list[Span]:
    """Everywhere that ``wanted`` stands in ``words``."""
    size = len(wanted)
    if size == 0:
        return []
    starts = range(len(words) - size + 1)
    return [(start, start + size) for start in starts if words[start : start + size] == wanted]


def _as_read(words: Words, spans: Iterable[Span]) -> set[Span]:
    """Spans as a reader finds them from the left: in a script without blanks, what begins within
    one answer and ends behind it is not said (Kyoto is not in 東京都, which is Tokyo)."""
    read: set[Span] = set()
    reaching: list[Span] = []  # those read that go on behind ``start``
    for start, end in sorted(set(spans), key=lambda span: (span[0], -span[1])):
        reaching = [span for span in reaching if span[1] > start]
        shared = [
            words[start:before] for first, before in reaching if first < start and before < end
        ]
        if not any(all(map(is_glued, each)) for each in shared):
            read.add((start, end))
            reaching.append((start, end))
    return read

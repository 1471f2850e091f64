"""Is a completion right? The reference must stand in it, and no rival answer may."""

from collections.abc import Iterable, Sequence

from remote_trainer.text_statistics import words_of

Words = tuple[str, ...]


def is_right(completion: str, reference: str, rivals: Iterable[Words]) -> bool:
    """Whether the reference stands in the completion as whole words and no rival does.

    Words are compared after NFKC, lower case and trimmed punctuation. A rival inside the
    reference itself ("Delhi" in "New Delhi") is no rival.
    """
    words, wanted = words_of(completion), words_of(reference)
    spans = _spans(words, wanted)
    if not spans:
        return False
    covered = {place for start, end in spans for place in range(start, end)}
    return all(
        set(range(start, end)) <= covered
        for rival in rivals
        if rival != wanted
        for start, end in _spans(words, rival)
    )


def is_exact(completion: str, reference: str) -> bool:
    """Whether the whole completion is the reference, compared by words."""
    return words_of(completion) == words_of(reference)


def rivals_by_kind(kinds: Sequence[str | None], references: Sequence[str]) -> dict[str, set[Words]]:
    """All answers of each kind; rows without a kind have no rivals."""
    rivals: dict[str, set[Words]] = {}
    for kind, reference in zip(kinds, references, strict=True):
        if kind is not None:
            rivals.setdefault(kind, set()).add(words_of(reference))
    return rivals


def _spans(words: Words, wanted: Words) -> list[tuple[int, int]]:
    """Every (start, end) at which ``wanted`` stands in ``words``."""
    size = len(wanted)
    if size == 0:
        return []
    starts = range(len(words) - size + 1)
    return [(start, start + size) for start in starts if words[start : start + size] == wanted]

"""The answers that count as right for each row, and those that give a wrong one away."""

from collections.abc import Iterable, Sequence

from remote_trainer.evaluation.answers import references_of
from remote_trainer.evaluation.matching import Words, is_exact, is_right, rivals_by_kind
from remote_trainer.final_answer import final_answer, stated_answer
from remote_trainer.records import EncodedRow


class Accepted:
    """Judges texts as answers to rows, by their final answer. Of several accepted answers one must
    stand in it.

    The answers of all other rows of a kind are rivals; a row's own accepted answers are not.
    """

    def __init__(self, rows: Sequence[EncodedRow], answer_field: str) -> None:
        self._references = [references_of(row, answer_field) for row in rows]
        self._patterns = [row.row.answer_pattern for row in rows]
        kinds = [row.row.fields.get("kind") for row in rows]
        self._kinds = [kind if isinstance(kind, str) else None for kind in kinds]
        self._rivals = _rivals(self._kinds, self._references)

    def known(self, place: int) -> bool:
        """Whether the row has a reference."""
        return bool(self._references[place])

    def is_right(self, place: int, text: str) -> bool:
        """Whether an accepted answer stands in the final answer of ``text``, and no rival."""
        own, kind = self._references[place], self._kinds[place]
        rivals = set() if kind is None else self._rivals.get(kind, set())
        if len(own) > 1:
            rivals = rivals - _words(own)
        pattern = self._patterns[place]
        return any(is_right(final_answer(text, each, pattern), each, rivals) for each in own)

    def is_exact(self, place: int, text: str) -> bool:
        """Whether ``text``, or the answer marked in it, is one of the accepted answers."""
        own, pattern = self._references[place], self._patterns[place]
        return any(is_exact(stated_answer(text, each, pattern), each) for each in own)


def _rivals(
    kinds: Sequence[str | None], references: Sequence[Sequence[str]]
) -> dict[str, set[Words]]:
    pairs = [
        (kind, reference)
        for kind, accepted in zip(kinds, references, strict=True)
        for reference in accepted
        if kind is not None
    ]
    return rivals_by_kind([kind for kind, _ in pairs], [reference for _, reference in pairs])


def _words(references: Iterable[str]) -> set[Words]:
    own = list(references)
    return rivals_by_kind([""] * len(own), own)[""]

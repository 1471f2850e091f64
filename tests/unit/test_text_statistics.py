"""Statistics of completions, by hand."""

import pytest

from remote_trainer.text_statistics import (
    distinct_3,
    duplicate_share,
    endless,
    loop_share,
    loops,
    words_of,
)


def test_distinct_3_pools_texts_and_needs_100_trigrams() -> None:
    assert distinct_3(["a b c d"] * 49) is None  # 98 trigrams
    assert distinct_3(["a b c d"] * 50) == 2 / 100
    assert distinct_3([" ".join(str(i) for i in range(102))]) == 1.0


def test_duplicates_count_across_different_questions_only() -> None:
    texts = ["5", "5", "5", "6", "7"]
    assert duplicate_share(texts, ["q1", "q1", "q2", "q2", "q3"]) == 3 / 5
    assert duplicate_share(texts, ["q"] * 5) == 0
    assert duplicate_share([], []) == 0


def test_loops() -> None:
    words = [f"word{i}" for i in range(10)]
    assert loops(" ".join(words * 10))
    assert loops("ha " * 40)
    assert not loops(" ".join(f"{i * 7919}" for i in range(100)))
    assert not loops("")
    assert loop_share(["ha " * 40, "Paris", "x", "y"]) == 0.25


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ha " * 20, True),
        ("the cat sat on " * 5, True),
        ("the cat sat on " * 3, False),  # three times is not over and over
        ("no no no no", False),  # too short to be a loop
        ("0." + "3" * 30, False),
        ("A long and honest sentence that begins the text. " + "yes, " * 8, False),  # under half
        ("A start. " + "and again and " * 12, True),
        ("\n".join(f"| {i} | {i * i} | {i**3} |" for i in range(100)), False),  # zlib says loop
        (str([{"id": i, "name": f"item {i}"} for i in range(60)]), False),  # so it does here
        ("", False),
    ],
)
def test_endless_is_a_loop_beyond_doubt(text: str, expected: bool) -> None:
    assert endless(text) is expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The capital is **Paris**.", ("the", "capital", "is", "paris")),
        ("“New Delhi”, India!", ("new", "delhi", "india")),
        ("ﬁve … -5 — 3-4", ("five", "-5", "3-4")),
        ("it's", ("it's",)),
        (" ... ", ("...",)),
        ("* ?", ("*", "?")),
        (" ", ()),
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    assert words_of(text) == words

"""The histogram of token counts against bins counted by hand."""

import pytest

from remote_trainer.data.lengths import MOST_BINS, histogram


@pytest.mark.parametrize(
    ("lengths", "bins"),
    [
        ([], []),
        ([7, 7], [(7, 7, 2)]),
        ([3, 5, 5], [(3, 3, 1), (4, 4, 0), (5, 5, 2)]),
        (
            [1, 2, 3, 16, 16],  # 16 lengths in 8 bins: 2 each
            [(1, 2, 2), (3, 4, 1), (5, 6, 0), (7, 8, 0), (9, 10, 0), (11, 12, 0), (13, 14, 0),
             (15, 16, 2)],
        ),
        ([10, 18], [(10, 11, 1), (12, 13, 0), (14, 15, 0), (16, 17, 0), (18, 19, 1)]),
    ],
)  # fmt: skip
def test_bins(lengths: list[int], bins: list[tuple[int, int, int]]) -> None:
    found = histogram(lengths)
    assert [(each["from"], each["to"], each["rows"]) for each in found] == bins
    assert len(found) <= MOST_BINS

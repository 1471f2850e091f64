"""The histogram on the terminal."""

from remote_trainer.cli.histogram import histogram_lines


def test_lines_are_narrow_and_no_row_is_invisible() -> None:
    bins = [
        {"from": 8, "to": 107, "rows": 1000},
        {"from": 108, "to": 207, "rows": 0},
        {"from": 208, "to": 307, "rows": 500},
        {"from": 308, "to": 407, "rows": 1},
    ]
    assert histogram_lines(bins) == [
        "    8-107 ################ 1000",
        "  108-207                  0",
        "  208-307 ########         500",
        "  308-407 #                1",
    ]


def test_bins_of_one_length_and_a_single_bin() -> None:
    bins = [{"from": 3, "to": 3, "rows": 2}, {"from": 4, "to": 4, "rows": 1}]
    assert histogram_lines(bins) == ["  3 ################ 2", "  4 ########         1"]
    assert histogram_lines(bins[:1]) == []
    assert histogram_lines([]) == []

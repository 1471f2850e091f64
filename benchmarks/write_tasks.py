"""Write the data sets for extraction and word problems into data/; the same bytes each time.

python benchmarks/write_tasks.py
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tasks import extraction, word_problems

DATA = Path(__file__).parents[1] / "data"


class Item(Protocol):
    """What a generator returns."""

    def row(self) -> dict[str, str]:
        """One line of a data file."""


def main() -> None:
    """Write four files."""
    for name, text in files().items():
        (DATA / name).write_text(text, encoding="utf-8")


def files() -> dict[str, str]:
    """File name -> content."""
    return {
        "train_extraction.jsonl": _lines(extraction.train_rows()),
        "eval_extraction.jsonl": _lines(extraction.eval_rows()),
        "train_word_problems.jsonl": _lines(word_problems.train_rows()),
        "eval_word_problems.jsonl": _lines(word_problems.eval_rows()),
    }


def _lines(items: Sequence[Item]) -> str:
    return "".join(json.dumps(item.row(), ensure_ascii=False) + "\n" for item in items)


if __name__ == "__main__":
    main()

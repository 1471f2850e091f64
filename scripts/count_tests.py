"""Counts the tests of several runs by pytest's JUnit files, and names what was skipped.

`.ci/run` calls it last, whether all passed or not.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree


def cases(folder: Path) -> Iterator[ElementTree.Element]:
    for file in sorted(folder.glob("*.xml")):
        yield from ElementTree.parse(file).iter("testcase")


def main() -> None:
    counts: Counter[str] = Counter()
    for case in cases(Path(sys.argv[1])):
        outcome = next((each for each in case if each.tag in ("failure", "error", "skipped")), None)
        if outcome is None:
            counts["passed"] += 1
        elif outcome.tag == "skipped":
            counts["skipped"] += 1
            print(f"skipped: {case.get('classname')}::{case.get('name')}: {outcome.get('message')}")
        else:
            counts["failed"] += 1
    print(", ".join(f"{counts[kind]} {kind}" for kind in ("passed", "skipped", "failed")))


if __name__ == "__main__":
    main()

"""Public data in this project's format, for studies beside the shipped data. Needs no token.

    python benchmarks/fetch_public.py svamp gsm8k xquad        # into runs/public/, not committed
    python benchmarks/fetch_public.py svamp --clone FOLDER     # from a clone of the repository

| name | content | licence | repository on GitHub |
| --- | --- | --- | --- |
| svamp | word problems of one or two steps | MIT | arkilpatel/SVAMP |
| gsm8k | word problems of two to eight steps | MIT | openai/grade-school-math |
| xquad | paragraphs of Wikipedia, questions, spans | CC BY-SA 4.0 | google-deepmind/xquad |

Rows are {"prompt", "answer", "kind"}. The kind of a number is `number`. The kind of a span is its
paragraph: the answers to the other questions about a paragraph are then wrong ones, and whoever
repeats the paragraph is not right. No story or article is in both files.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).parents[1]
SVAMP_WRONG = ("chal-680",)
"""The answer is not the value of the equation: 4 - 2 + 3 is not 1."""
SVAMP_TRAIN, XQUAD_TRAIN_ARTICLES = 700, 32
MOST_WORDS_OF_A_SPAN = 8
SECONDS = 60

Row = dict[str, str]
Texts = Mapping[str, str]
"""Path in the repository -> content."""


@dataclass(frozen=True)
class Source:
    """Files of a repository at one commit, and what makes rows of them."""

    repository: str
    commit: str
    files: Sequence[str]
    convert: Callable[[Texts], tuple[list[Row], list[Row]]]
    """Returns (training rows, evaluation rows)."""


def main() -> None:
    """Write two files for each name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="+", choices=SOURCES)
    parser.add_argument("--clone", type=Path, help="read the files here (one name only)")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "public")
    options = parser.parse_args()
    if options.clone and len(options.names) > 1:
        parser.error("--clone: the folder of one repository; write one name")
    for name in options.names:
        source = SOURCES[name]
        parts = source.convert({path: _text(source, path, options.clone) for path in source.files})
        for part, rows in zip(("train", "eval"), parts, strict=True):
            target = options.output / f"{part}_{name}.jsonl"
            _write(target, rows)
            print(f"{target}: {len(rows)} rows")


def _text(source: Source, path: str, clone: Path | None) -> str:
    if clone is not None:
        return (clone / path).read_text(encoding="utf-8")
    url = f"https://raw.githubusercontent.com/{source.repository}/{source.commit}/{path}"
    try:
        with urlopen(url, timeout=SECONDS) as answer:
            content: bytes = answer.read()
    except OSError as error:
        raise SystemExit(
            f"{url}: {error}. Clone https://github.com/{source.repository} where there is a "
            "network and name the folder with --clone"
        ) from None
    return content.decode("utf-8")


def _write(target: Path, rows: Sequence[Row]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    target.write_text(lines, encoding="utf-8")


def svamp(texts: Texts) -> tuple[list[Row], list[Row]]:
    """The variations of a story stand next to each other, so the files are cut at one place."""
    problems = [p for p in json.loads(texts["SVAMP.json"]) if p["ID"] not in SVAMP_WRONG]
    rows = [_number(_story(each["Body"], each["Question"]), each["Answer"]) for each in problems]
    return rows[:SVAMP_TRAIN], rows[SVAMP_TRAIN:]


def _story(body: str, question: str) -> str:
    """Body and question as one text; some bodies are the first half of the question's sentence."""
    body, question = _plain(body), _plain(question)
    if body.endswith((".", "?", "!")):
        return f"{body} {question}"
    return f"{body}, {question[0].lower()}{question[1:]}"


def gsm8k(texts: Texts) -> tuple[list[Row], list[Row]]:
    """Only the final number of a worked solution is kept."""

    def rows(part: str) -> list[Row]:
        lines = texts[f"grade_school_math/data/{part}.jsonl"].splitlines()
        return [_of_gsm8k(json.loads(line)) for line in lines]

    return rows("train"), rows("test")


def _of_gsm8k(problem: dict[str, str]) -> Row:
    final = problem["answer"].rpartition("####")[2]
    return _number(_plain(problem["question"]), float(final.replace(",", "")))


def xquad(texts: Texts) -> tuple[list[Row], list[Row]]:
    """Split by article; answers of at most eight words."""
    articles = json.loads(texts["xquad.en.json"])["data"]

    def rows(chosen: Sequence[dict[str, Any]], first: int) -> list[Row]:
        return [
            row
            for number, article in enumerate(chosen, first)
            for place, paragraph in enumerate(article["paragraphs"], 1)
            for row in _of_paragraph(paragraph, f"article {number}, paragraph {place}")
        ]

    train, held_out = articles[:XQUAD_TRAIN_ARTICLES], articles[XQUAD_TRAIN_ARTICLES:]
    return rows(train, 1), rows(held_out, 1 + XQUAD_TRAIN_ARTICLES)


def _of_paragraph(paragraph: dict[str, Any], kind: str) -> list[Row]:
    context = _plain(paragraph["context"])
    return [
        {"prompt": f"{context}\n\n{_plain(each['question'])}", "answer": answer, "kind": kind}
        for each in paragraph["qas"]
        if len((answer := _plain(each["answers"][0]["text"])).split()) <= MOST_WORDS_OF_A_SPAN
    ]


def _number(prompt: str, answer: float) -> Row:
    text = str(int(answer)) if answer == int(answer) else str(answer)
    return {"prompt": prompt, "answer": text, "kind": "number"}


def _plain(text: str) -> str:
    """Without double, leading and trailing blanks."""
    return " ".join(text.split())


SOURCES: Mapping[str, Source] = {
    "svamp": Source(
        "arkilpatel/SVAMP", "689d7ccac74b9983a2ac7cc3b264f441b99e7c53", ["SVAMP.json"], svamp
    ),
    "gsm8k": Source(
        "openai/grade-school-math",
        "3101c7d5072418e28b9008a6636bde82a006892c",
        ["grade_school_math/data/train.jsonl", "grade_school_math/data/test.jsonl"],
        gsm8k,
    ),
    "xquad": Source(
        "google-deepmind/xquad",
        "7d30520c717524000f0d9d2f9c10a069acd9d285",
        ["xquad.en.json"],
        xquad,
    ),
}


if __name__ == "__main__":
    main()

"""Rows from public data: a few lines in the format of each repository, converted by hand."""

import json
import sys
from pathlib import Path

import fetch_public
import pytest


def test_svamp_joins_body_and_question() -> None:
    problems = [
        {"ID": "chal-1", "Body": "Ann has 3 pens .", "Question": "How many?", "Answer": 3.0},
        {"ID": "chal-2", "Body": "If Ann has  3 pens", "Question": "How many?", "Answer": 2.5},
        {"ID": "chal-680", "Body": "Wrong.", "Question": "How many?", "Answer": 1.0},
    ]
    train, held_out = fetch_public.svamp({"SVAMP.json": json.dumps(problems)})
    assert train == [
        {"prompt": "Ann has 3 pens . How many?", "answer": "3", "kind": "number"},
        {"prompt": "If Ann has 3 pens, how many?", "answer": "2.5", "kind": "number"},
    ]
    assert held_out == []


def test_svamp_is_cut_at_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_public, "SVAMP_TRAIN", 2)
    problems = [
        {"ID": str(i), "Body": f"{i}.", "Question": "Which?", "Answer": i} for i in range(5)
    ]
    parts = fetch_public.svamp({"SVAMP.json": json.dumps(problems)})
    assert [[row["answer"] for row in rows] for rows in parts] == [["0", "1"], ["2", "3", "4"]]


def test_gsm8k_keeps_the_final_number() -> None:
    folder = "grade_school_math/data"
    line = json.dumps({"question": "How  many?", "answer": "3*400=<<3*400=1200>>1200\n#### 1,200"})
    train, held_out = fetch_public.gsm8k(
        {f"{folder}/train.jsonl": f"{line}\n", f"{folder}/test.jsonl": f"{line}\n{line}\n"}
    )
    assert train == [{"prompt": "How many?", "answer": "1200", "kind": "number"}]
    assert held_out == train * 2


def test_xquad_is_split_by_article(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_public, "XQUAD_TRAIN_ARTICLES", 1)

    def article(answer: str) -> dict[str, object]:
        asked = {"question": "Who?", "answers": [{"text": answer, "answer_start": 0}]}
        return {"title": "", "paragraphs": [{"context": f"{answer} came.", "qas": [asked]}]}

    nine_words = "a b c d e f g h i"
    data = {"data": [article("Ann"), article("Ben"), article(nine_words)]}
    parts = fetch_public.xquad({"xquad.en.json": json.dumps(data)})
    assert parts == (
        [{"prompt": "Ann came.\n\nWho?", "answer": "Ann", "kind": "article 1, paragraph 1"}],
        [{"prompt": "Ben came.\n\nWho?", "answer": "Ben", "kind": "article 2, paragraph 1"}],
    )


def test_a_clone_is_converted_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = {"ID": "1", "Body": "Ann has 3 pens.", "Question": "How many?", "Answer": 3}
    (tmp_path / "SVAMP.json").write_text(json.dumps([problem]))
    arguments = ["fetch_public.py", "svamp", "--clone", str(tmp_path), "--output"]
    monkeypatch.setattr(sys, "argv", [*arguments, str(tmp_path / "out")])
    fetch_public.main()
    lines = (tmp_path / "out" / "train_svamp.jsonl").read_text().splitlines()
    assert [json.loads(line)["answer"] for line in lines] == ["3"]


def test_a_repository_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str, timeout: float) -> None:
        raise OSError("no network")

    monkeypatch.setattr(fetch_public, "urlopen", unreachable)
    monkeypatch.setattr(sys, "argv", ["fetch_public.py", "svamp"])
    with pytest.raises(SystemExit, match=r"SVAMP\.json: no network\. Clone .* with --clone"):
        fetch_public.main()

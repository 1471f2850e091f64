"""The rules which the shipped data files in `data/` keep (see `data/README.md`)."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[3] / "data"
TRAIN = "train_supervised.jsonl"
EVAL = "eval_supervised.jsonl"
UNSUPERVISED = "train_unsupervised.jsonl"
SUPERVISED_KEYS = ["prompt", "answer", "kind", "subject"]
KEYS = {TRAIN: SUPERVISED_KEYS, EVAL: SUPERVISED_KEYS, UNSUPERVISED: ["prompt"]}
MINIMUM_ROWS = {TRAIN: 400, EVAL: 120, UNSUPERVISED: 300}
MINIMUM_KINDS = 8
MINIMUM_PER_KIND = {TRAIN: 30, EVAL: 8}
MAXIMUM_PER_KIND_TRAIN = 80
SIGNS = {"addition": "+", "subtraction": "-", "multiplication": "*"}
NAME_KINDS = {"capital", "language", "continent"}
WORD_KINDS = {"opposite", "element", "plural", "past_tense", "animal_young"}
NUMBER_KINDS = {"how_many", *SIGNS}

Row = dict[str, str]


def load(name: str) -> list[Row]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def supervised() -> list[Row]:
    return load(TRAIN) + load(EVAL)


def words(text: str) -> list[str]:
    """The words of a text, in lower case and without punctuation."""
    return re.findall(r"\w+", text.casefold())


def stands_in(needle: str, text: str) -> bool:
    """Whether `needle` occurs in `text` as whole words."""
    return f" {' '.join(words(needle))} " in f" {' '.join(words(text))} "


def plain(prompt: str) -> str:
    """A prompt in lower case without punctuation, but with the signs of arithmetic kept."""
    return " ".join(re.findall(r"\w+|[-+*](?=\s)", prompt.casefold()))


def repeated(values: list[str]) -> list[str]:
    return sorted(value for value, count in Counter(values).items() if count > 1)


def kinds(rows: list[Row]) -> Counter[str]:
    return Counter(row["kind"] for row in rows)


def of_kind(rows: list[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def operands(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def computed(kind: str, prompt: str) -> tuple[str, str]:
    """The subject and the answer which follow from the numbers in an arithmetic prompt."""
    numbers = operands(prompt)
    assert len(numbers) == 2, f"not two numbers in {prompt!r}"
    if kind != "subtraction":
        numbers.sort()
    left, right = numbers
    results = {
        "addition": left + right,
        "subtraction": left - right,
        "multiplication": left * right,
    }
    return f"{left}{SIGNS[kind]}{right}", str(results[kind])


def fact(row: Row) -> str:
    """What makes two rows the same fact, whichever way round it is asked."""
    kind, subject = row["kind"], row["subject"]
    if kind == "opposite":
        return f"{kind}: {' / '.join(sorted([subject.casefold(), row['answer'].casefold()]))}"
    if kind in {"addition", "multiplication"}:
        return f"{kind}: {sorted(operands(subject))}"
    return f"{kind}: {subject.casefold()}"


def wording(row: Row) -> str:
    """The prompt with a gap where the thing asked about stood."""
    kind, prompt = row["kind"], row["prompt"]
    if kind in SIGNS:
        return re.sub(r"\d+", "_", prompt)
    if kind == "how_many":
        return re.sub(r"^How many .*?\?", "How many _?", prompt)
    return re.sub(rf"\b(?:the |an? )?{re.escape(row['subject'])}\b", "_", prompt, count=1)


def readme_tables() -> dict[str, dict[str, int]]:
    """The tables of the README: file name -> first cell -> count."""
    tables: dict[str, dict[str, int]] = {}
    current: dict[str, int] = {}
    for line in (DATA / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            current = tables.setdefault(line.strip("#` "), {})
        elif match := re.fullmatch(r"\| *([^|]+?) *\| *(\d+) *\|", line.strip()):
            current[match[1]] = int(match[2])
    return tables


@pytest.mark.parametrize("name", list(KEYS))
def test_every_line_is_one_object_with_the_documented_keys(name: str) -> None:
    text = (DATA / name).read_text(encoding="utf-8")
    assert text.endswith("\n"), f"{name}: the last line must end with \\n"
    assert "\r" not in text, f"{name}: lines must end with \\n"
    for number, line in enumerate(text.splitlines(), start=1):
        row = json.loads(line)
        assert list(row) == KEYS[name], f"{name}:{number}: keys {list(row)}"
        assert all(isinstance(value, str) for value in row.values()), f"{name}:{number}: not text"


@pytest.mark.parametrize("name", list(KEYS))
def test_values_are_non_empty_single_lines_without_stray_spaces(name: str) -> None:
    values = [value for row in load(name) for value in row.values()]
    bad = [value for value in values if not value or value != " ".join(value.split())]
    assert not bad, f"{name}: empty or with stray spaces: {bad}"


@pytest.mark.parametrize(("name", "minimum"), list(MINIMUM_ROWS.items()))
def test_each_file_is_large_enough(name: str, minimum: int) -> None:
    count = len(load(name))
    assert count >= minimum, f"{name}: {count} rows, at least {minimum} are promised"


def test_both_supervised_files_have_the_same_kinds() -> None:
    train, evaluation = set(kinds(load(TRAIN))), set(kinds(load(EVAL)))
    assert train == evaluation, f"kinds in one file only: {sorted(train ^ evaluation)}"
    assert len(train) >= MINIMUM_KINDS, f"only {len(train)} kinds"
    known = NAME_KINDS | WORD_KINDS | NUMBER_KINDS
    assert train == known, f"kinds which these tests do not know: {sorted(train ^ known)}"


@pytest.mark.parametrize(("name", "minimum"), list(MINIMUM_PER_KIND.items()))
def test_every_kind_has_enough_rows(name: str, minimum: int) -> None:
    short = {kind: count for kind, count in kinds(load(name)).items() if count < minimum}
    assert not short, f"{name}: fewer than {minimum} rows: {short}"


def test_no_kind_dominates_the_training_rows() -> None:
    counts = kinds(load(TRAIN)).items()
    large = {kind: count for kind, count in counts if count > MAXIMUM_PER_KIND_TRAIN}
    assert not large, f"more than {MAXIMUM_PER_KIND_TRAIN} rows: {large}"


def test_no_prompt_is_repeated_in_or_between_files() -> None:
    prompts = [plain(row["prompt"]) for name in KEYS for row in load(name)]
    assert not repeated(prompts), f"repeated prompts: {repeated(prompts)}"


def test_unsupervised_prompts_differ_by_more_than_punctuation() -> None:
    prompts = [" ".join(words(row["prompt"])) for row in load(UNSUPERVISED)]
    assert not repeated(prompts), f"repeated prompts: {repeated(prompts)}"
    shared = set(prompts) & {" ".join(words(row["prompt"])) for row in supervised()}
    assert not shared, f"unsupervised prompts which are supervised ones too: {sorted(shared)}"


def test_no_fact_is_repeated_in_or_between_the_supervised_files() -> None:
    facts = [fact(row) for row in supervised()]
    assert not repeated(facts), f"facts which stand twice: {repeated(facts)}"


def test_arithmetic_follows_from_the_numbers_in_the_prompt() -> None:
    for row in supervised():
        if row["kind"] in SIGNS:
            expected = computed(row["kind"], row["prompt"])
            found = row["subject"], row["answer"]
            assert found == expected, f"{row['prompt']!r}: {found}, computed {expected}"


def test_prompts_name_their_subject() -> None:
    for row in supervised():
        if row["kind"] not in SIGNS:
            missing = set(words(row["subject"])) - set(words(row["prompt"]))
            assert not missing, f"{row['prompt']!r} lacks {sorted(missing)} of its subject"


@pytest.mark.parametrize("kind", sorted(NAME_KINDS | WORD_KINDS | NUMBER_KINDS))
def test_no_answer_of_a_kind_stands_in_a_prompt_of_that_kind(kind: str) -> None:
    rows = of_kind(supervised(), kind)
    answers = sorted({row["answer"] for row in rows})
    prompts = [row["prompt"] for row in rows]
    bad = [(answer, text) for answer in answers for text in prompts if stands_in(answer, text)]
    assert not bad, f"{kind}: answers which a restated question would contain: {bad}"


@pytest.mark.parametrize("kind", sorted(NAME_KINDS | WORD_KINDS | NUMBER_KINDS))
def test_no_answer_of_a_kind_contains_another(kind: str) -> None:
    answers = sorted({row["answer"] for row in of_kind(supervised(), kind)})
    bad = [(a, b) for a in answers for b in answers if a != b and stands_in(a, b)]
    assert not bad, f"{kind}: the first stands in the second: {bad}"


def test_answers_are_short_and_plain() -> None:
    for row in supervised():
        answer = row["answer"]
        assert 1 <= len(answer.split()) <= 3, f"{answer!r}: not one to three words"
        assert re.fullmatch(r"[A-Za-z]+( [A-Za-z]+)*|[1-9]\d*", answer), f"{answer!r}: not plain"


def test_answers_are_written_as_their_kind_asks() -> None:
    for row in supervised():
        kind, answer = row["kind"], row["answer"]
        assert answer.isdigit() == (kind in NUMBER_KINDS), f"{kind}: {answer!r}"
        assert answer.islower() == (kind in WORD_KINDS), f"{kind}: {answer!r}"
        assert answer.istitle() == (kind in NAME_KINDS), f"{kind}: {answer!r}"


@pytest.mark.parametrize("kind", sorted(NAME_KINDS | WORD_KINDS | NUMBER_KINDS))
def test_each_kind_has_a_few_wordings_and_both_files_use_them(kind: str) -> None:
    train = {wording(row) for row in of_kind(load(TRAIN), kind)}
    evaluation = {wording(row) for row in of_kind(load(EVAL), kind)}
    assert train == evaluation, f"{kind}: wordings in one file only: {train ^ evaluation}"
    assert 2 <= len(train) <= 4, f"{kind}: {len(train)} wordings: {sorted(train)}"


@pytest.mark.parametrize("name", list(KEYS))
def test_prompts_are_short_and_end_as_sentences_do(name: str) -> None:
    for row in load(name):
        prompt = row["prompt"]
        assert prompt[-1] in '.?!"', f"{name}: {prompt!r} does not end as a sentence"
        assert len(prompt) <= 100, f"{name}: {prompt!r} is {len(prompt)} characters long"


@pytest.mark.parametrize("name", [TRAIN, EVAL])
def test_readme_counts_of_the_supervised_files(name: str) -> None:
    rows = load(name)
    expected = {**kinds(rows), "total": len(rows)}
    found = readme_tables().get(name)
    assert found == expected, f"README table of {name}: {found}, the file has {expected}"


def test_readme_count_of_the_unsupervised_file() -> None:
    expected = {"total": len(load(UNSUPERVISED))}
    found = readme_tables().get(UNSUPERVISED)
    assert found == expected, f"README table of {UNSUPERVISED}: {found}, the file has {expected}"

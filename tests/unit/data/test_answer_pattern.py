"""data.answer_pattern: the final answer in longer references, or a problem with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data import load_data, load_score_rows
from remote_trainer.data.encode import encode_rows
from remote_trainer.data.jsonl import SHOWN_PROBLEMS
from remote_trainer.errors import UserInputError
from remote_trainer.rewards import RewardFunction

PATTERN = "#### (.+)"


def config_for(file: Path, pattern: str | None = PATTERN, reward: str = "exact_match") -> RunConfig:
    settings = {
        "data": {"train": str(file), "eval": "none", "answer_pattern": pattern},
        "reward": {"type": reward},
        "training": {"gradient_accumulation_steps": 1},
    }
    return parse_config(json.dumps(settings), "c")


def file_of(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(config: RunConfig) -> list[Any]:
    return [row.fields.get("answer") for row in load_data(config).train]


def test_the_last_match_is_the_reference(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "answer": "4 + 3 = 7\n#### 7 "},
        {"prompt": "b", "answer": "#### 1\nno\n#### 1,234"},
        {"prompt": "c", "answer": ["x #### 5", "y #### five"]},
        {"prompt": "d", "answer": 12},
        {"messages": [
            {"role": "user", "content": "e"}, {"role": "assistant", "content": "so\n#### 9"},
        ]},
    ]  # fmt: skip
    file = file_of(tmp_path, *rows)
    assert answers(config_for(file)) == ["7", "1,234", ["5", "five"], 12, "9"]
    assert answers(config_for(file, None))[0] == "4 + 3 = 7\n#### 7 "


def test_rows_without_an_answer_stay_without_one(tmp_path: Path) -> None:
    file = file_of(tmp_path, {"prompt": "a"}, {"prompt": "b", "answer": " "}, {"prompt": "c"})
    data = load_data(config_for(file, reward="inverse_loss"))
    assert [row.fields for row in data.train] == [{}, {"answer": " "}, {}]


def test_a_boxed_answer(tmp_path: Path) -> None:
    file = file_of(tmp_path, {"prompt": "a", "answer": "so \\boxed{42}."})
    assert answers(config_for(file, r"\\boxed\{([^}]*)\}")) == ["42"]


def test_what_does_not_match_is_a_problem_with_its_line(tmp_path: Path) -> None:
    good = {"prompt": "a", "answer": "#### 7"}
    bad = [{"prompt": "b", "answer": f"it is {i}"} for i in range(SHOWN_PROBLEMS + 3)]
    file = file_of(tmp_path, good, *bad, {"prompt": "c", "answer": "####  "})
    with pytest.raises(UserInputError) as caught:
        load_data(config_for(file))
    first, *_, last = caught.value.problems
    assert str(first) == (
        f"{file}:2: 'answer' has no match of data.answer_pattern '#### (.+)': found 'it is 0'; "
        "change the answer or the pattern"
    )
    assert str(last) == f"{file}: and 4 more lines with problems"
    assert len(caught.value.problems) == SHOWN_PROBLEMS + 1


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("#### .+", "'#### .+' has 0 groups; write exactly one, around the answer, for instance"),
        ("(#+) (.+)", r"'(#+) (.+)' has 2 groups; write exactly one"),
        ("#### (.+", "is not a regular expression: missing ), unterminated subpattern"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(UserInputError) as caught:
        config_for(tmp_path, pattern)
    (problem,) = caught.value.problems
    assert message in str(problem)
    assert "data.answer_pattern" in str(problem)


@pytest.mark.parametrize("reward", ["exact_match", "token_f1", "chrf", "majority_vote"])
def test_text_rewards_compare_what_the_pattern_finds(
    llama: Any, tmp_path: Path, reward: str
) -> None:
    row = {"prompt": "What is 4 + 3?", "answer": "4 + 3 = 7\n#### seven"}
    config = config_for(file_of(tmp_path, row), reward=reward)
    rows, _ = encode_rows(load_data(config).train, llama.prompt_tokenizer, config, [])
    function = RewardFunction(llama, config.reward)
    said = ["well, #### seven", "hm #### six", "then #### seven"]
    samples = [function.sample(rows[0], llama.prompt_tokenizer.encode(text)) for text in said]
    judged = [each.reward for each in function.judge(samples)]
    assert judged[0] == judged[2] == 1.0
    assert judged[1] is not None
    assert judged[1] < 1.0


def test_rows_to_score_have_their_final_answer(tmp_path: Path) -> None:
    row = {"prompt": "a", "answer": "so #### 7", "completion": "x"}
    file = file_of(tmp_path, row)
    (found,), _ = load_score_rows(file, config_for(file))
    assert found.row.fields["answer"] == "7"
    assert found.row.answer_pattern == PATTERN
    assert found.given == row

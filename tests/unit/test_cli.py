"""Commands in a process of their own: exit codes, messages, and what is not imported."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPY = """
import sys
from remote_trainer.cli import main
try:
    main()
finally:
    print("loaded:", *sorted({"torch", "transformers", "trl", "peft"} & set(sys.modules)),
          file=sys.stderr)
"""


def command(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", SPY, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def test_help_answers_at_once() -> None:
    command("--help")  # byte code
    started = time.perf_counter()
    done = command("--help")
    assert time.perf_counter() - started < 1.0
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("check", "train", "score", "eval", "report"))
    assert done.stderr == "loaded:\n"


@pytest.mark.parametrize("name", ["default", "supervised", "unsupervised"])
def test_shipped_configs_pass_check_without_torch(name: str, tmp_path: Path) -> None:
    started = time.perf_counter()
    done = command("check", f"configs/{name}.yaml", "--json", REMOTE_TRAINER_CACHE=str(tmp_path))
    assert time.perf_counter() - started < 5.0
    assert (done.returncode, done.stderr) == (0, "loaded:\n")
    result = json.loads(done.stdout)
    assert result["ok"]
    assert result["notes"] == [
        "prompt lengths are not checked: the model is not on this machine yet"
    ]


WRONG = [
    (["check", "no.yaml"], "no.yaml: no such file"),
    (["train", "{bad}"], "training.lerning_rate: no such key; did you mean 'learning_rate'?"),
    (["train", "{good}", "--set", "data.train=no.jsonl"], "no.jsonl: no such file"),
    (["train", "{good}", "--set", "model.name=./no"], "model.name: no folder './no'"),
    (["train", "{good}", "--set", "training.trl={{beta: 1}}"], "training.trl.beta: has a key"),
    (["train", "{good}", "--set", "data.train={rows}"], "'prompt' missing"),
    (["train", "{good}", "--resume", "nowhere"], "--resume: no folder 'nowhere'"),
    (["score", "{good}", "--input", "no.jsonl", "--output", "x"], "no.jsonl: no such file"),
    (["eval", "./no", "--data", "no.jsonl"], "no.jsonl: no such file"),
    (["eval", "x", "--data", "y", "--base", "--against", "z"], "both name the other side"),
    (["report", "{here}"], "is no run folder"),
    (["train"], "Missing argument"),
    (["train", "{good}", "--resume"], "requires an argument"),
    (["nonsense"], "No such command"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_input_is_exit_2_without_traceback_or_model(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("training: {lerning_rate: 1, seed: x}\n")
    (tmp_path / "rows.jsonl").write_text('{"question": "a"}\n')
    good = f"data: {{train: {ROOT}/data/train_unsupervised.jsonl}}\noutput_dir: {tmp_path}/run\n"
    (tmp_path / "good.yaml").write_text(good)
    names = {"bad": tmp_path / "bad.yaml", "good": tmp_path / "good.yaml", "here": tmp_path}
    names["rows"] = tmp_path / "rows.jsonl"
    done = command(*(argument.format(**names) for argument in arguments))
    assert done.returncode == 2
    assert message.replace("'prompt' missing", "'prompt' is missing") in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("loaded:\n")
    assert not (tmp_path / "run").exists()


def test_check_as_json_lists_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("training:\n  seed: x\n  beta: -1\n")
    done = command("check", path, "--json")
    assert done.returncode == 2
    result = json.loads(done.stdout)
    assert not result["ok"]
    assert [problem["where"] for problem in result["problems"]] == [f"{path}:3", f"{path}:2"]


def test_the_script_is_the_train_command() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/train.py", "--config", "no.yaml"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no.yaml: no such file" in done.stderr

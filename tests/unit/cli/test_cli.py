"""Commands in a process of their own: exit codes, messages, and what is not imported."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from remote_trainer import __version__
from remote_trainer.cli import commands, progress, texts
from remote_trainer.cli.app import COMMANDS, app
from remote_trainer.docs_pages.reward_pages import RewardPage, reward_page
from remote_trainer.pipeline import score
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.rewards import REWARDS

ROOT = Path(__file__).parents[3]
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
    assert all(
        name in done.stdout for name in ("init", "check", "train", "score", "eval", "report")
    )
    assert done.stderr == "loaded:\n"


@pytest.mark.parametrize("name", ["default", "supervised", "unsupervised", "original_design"])
def test_shipped_configs_pass_check_without_torch(name: str, tmp_path: Path) -> None:
    started = time.perf_counter()
    done = command("check", f"configs/{name}.yaml", "--json", REMOTE_TRAINER_CACHE=str(tmp_path))
    assert time.perf_counter() - started < 5.0
    assert (done.returncode, done.stderr) == (0, "loaded:\n")
    result = json.loads(done.stdout)
    assert result["ok"]
    assert result["notes"] == [
        "prompt lengths were not checked: the model is not downloaded yet",
        "lora.target_modules was not checked: the model is not downloaded yet",
    ]


@pytest.mark.parametrize("name", [command.called for command in COMMANDS])
def test_every_help_has_an_example_and_the_exit_codes(name: str) -> None:
    environment = {"COLUMNS": "200", "TERM": "dumb"}
    done = CliRunner().invoke(app, [*name.split(), "--help"], env=environment)
    assert done.exit_code == 0
    assert f" remote-trainer {name}" in done.output.partition("Example:")[2]
    assert "Exit codes: 0 " in done.output


def test_examples_name_options_that_exist() -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for each in COMMANDS:
        found: Any = group
        for word in each.called.split():
            found = found.commands[word]
        known = {opt for param in found.params for opt in param.opts}
        assert set(re.findall(r"--[a-z-]+", each.example)) <= known


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(shell: str) -> None:
    script = command("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert script.returncode == 0
    assert "_COMPLETE" in script.stdout


def test_completion_answers_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'remote-trainer'\n" + SPY],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "_REMOTE_TRAINER_COMPLETE": "complete_bash",
            "COMP_WORDS": "remote-trainer e",
            "COMP_CWORD": "1",
        },
    )
    assert done.stdout.split() == ["eval", "export"]
    assert done.stderr == "loaded:\n"


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
    (["eval", "x", "--data", "y", "--base", "--against", "z"], "cannot be combined with --against"),
    (["report", "{here}"], "is not a run folder"),
    (["train"], "Missing argument"),
    (["init", "{here}"], "{here}: exists and is not empty; write the name of a new folder"),
    (["init", "{here}/new", "--from", "{rows}"], "{rows}: no key holds the prompt of each"),
    (["init", "{here}/new", "--from", "{here}"], "no key holds the prompt of each"),
    (["train", "{good}", "--quiet", "--json"], "--quiet: cannot be combined with --json"),
    (["doctor", "--set", "training.seed=1"], "--set: needs a config"),
    (["check", "{good}", "--set", "output_dir={rows}"], "output_dir: {rows}: is a file; write"),
    (["check", "{good}", "--set", "output_dir={rows}/a"], "is a file and cannot contain a folder"),
    (["train", "{good}", "--set", "output_dir={rows}/a"], "is a file and cannot contain a folder"),
    (["train", "{good}", "--set", "output_dir=/proc/run"], "output_dir: /proc/run: cannot be writ"),
    (
        ["train", "{good}", "--set", 'output_dir="a\\0b"'],
        "output_dir: found 'a\\x00b', which contains",
    ),
    (["train", "{good}", "--set", "output_dir=''"], "output_dir: found ''; write a path"),
    (
        ["train", "{good}", "--set", "output_dir=$HOME/x"],
        "output_dir: found '$HOME/x', and variables",
    ),
    (
        ["score", "{good}", "--input", "{pairs}", "--output", "{here}"],
        "--output: {here}: is a fold",
    ),
    (["score", "{good}", "--input", "{pairs}", "--output", "{pairs}/x"], "cannot contain a folder"),
    (
        ["score", "{good}", "--input", "{pairs}", "--output", "/proc/x/y"],
        "--output: /proc/x/y: cann",
    ),
    (
        ["score", "{good}", "--input", "{pairs}", "--output", "{pairs}"],
        "is also the input; write another",
    ),
    (
        ["export", "{ended}", "--output", "{here}"],
        "--output: {here}: is not empty and is not an exp",
    ),
    (["export", "{ended}", "--output", "{rows}"], "--output: {rows}: is a file"),
    (["report", "{ended}", "--output", "{here}"], "--output: {here}: is a folder"),
    (["report", "{ended}", "--output", "{rows}/x"], "is a file and cannot contain a folder"),
    (["eval", "{ended}", "--data", "{ended}"], "{ended}: the folder holds no .jsonl, .csv or"),
    (["eval", "{ended}", "--data", "{here}"], "{rows}:1: 'prompt' is missing; found keys: topic"),
    (["train", "{good}", "--resume"], "requires an argument"),
    (["nonsense"], "No such command"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_input_is_exit_2_without_traceback_or_model(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("training: {lerning_rate: 1, seed: x}\n")
    (tmp_path / "rows.jsonl").write_text('{"topic": "a"}\n')
    good = f"data: {{train: {ROOT}/data/train_unsupervised.jsonl}}\noutput_dir: {tmp_path}/run\n"
    (tmp_path / "good.yaml").write_text(good)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "ended/adapter").mkdir(parents=True)
    (tmp_path / "ended/config.resolved.yaml").write_text(good)
    names = {"bad": tmp_path / "bad.yaml", "good": tmp_path / "good.yaml", "here": tmp_path}
    names |= {name: tmp_path / f"{name}.jsonl" for name in ("rows", "pairs")}
    names["ended"] = tmp_path / "ended"
    done = command(*(argument.format(**names) for argument in arguments))
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert message.replace("'prompt' missing", "'prompt' is missing").format(**names) in told
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("loaded:\n")
    assert not (tmp_path / "run").exists()


def test_versions_are_told_without_importing_anything() -> None:
    done = command("--version")
    assert (done.returncode, done.stderr) == (0, "loaded:\n")
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"remote-trainer {__version__}", f"Python {platform.python_version()}"]
    packages = ("torch", "transformers", "trl")
    assert lines[2:] == [f"{name} {version(name)}" for name in packages]


LIGHT = """
import sys
sys.modules |= dict.fromkeys(["torch", "transformers", "trl", "peft", "xllamacpp"])
"""
"""None in place of a module: it cannot be imported, and is not found."""


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["train", "{good}"], "train: needs torch, transformers, peft, trl"),
        (["score", "{good}", "--input", "{pairs}", "--output", "x"], "score: needs torch, transf"),
        (["eval", "{model}", "--data", "{pairs}"], "eval: needs torch, transformers, peft"),
        (["chat", "{model}"], "chat: needs torch, transformers, peft"),
        (["export", "{here}"], "export: needs torch, transformers, peft"),
        (["chat", "{gguf}"], "chat: needs xllamacpp, which are in the extra 'gguf': "),
    ],
)
def test_what_the_light_installation_lacks_is_named_with_its_extra(
    arguments: list[str], needs: str, tmp_path: Path, llama_folder: Path
) -> None:
    good = f"data: {{train: {ROOT}/data/train_unsupervised.jsonl}}\noutput_dir: {tmp_path}/run\n"
    (tmp_path / "good.yaml").write_text(good + f"model: {{name: {llama_folder}}}\n")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "m.gguf").touch()
    names = {"good": tmp_path / "good.yaml", "pairs": tmp_path / "pairs.jsonl", "here": tmp_path}
    names |= {"model": llama_folder, "gguf": tmp_path / "m.gguf"}
    done = subprocess.run(
        [sys.executable, "-c", LIGHT + SPY, *(a.format(**names) for a in arguments)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert needs in done.stderr
    extra = "gguf" if "gguf" in needs else "train"
    assert f"python -m pip install 'remote-trainer[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
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


def pages() -> list[RewardPage]:
    return [reward_page(name) for name in REWARDS]


def test_rewards_lists_the_catalogue_in_80_columns_without_torch() -> None:
    done = command("rewards", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "loaded:\n")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["name", "what", "it", "is", "needs", "cost"]
    assert [line.split()[0] for line in lines[1:] if line[:1].strip()] == list(REWARDS)
    assert max(map(len, lines)) <= 80
    assert "…" not in done.stdout
    words = set(done.stdout.split())  # no cell breaks inside a word
    assert {word for page in pages() for word in page.summary.split()} <= words
    assert {word for page in pages() for word in page.cost_in_brief.split()} <= words


@pytest.mark.parametrize("name", REWARDS)
def test_rewards_prints_all_that_is_known_about_one(name: str) -> None:
    text = texts.describe_reward(reward_page(name))
    assert text.startswith(f"{name}: ")
    parts = [part.partition("\n") for part in text.split("\n\n")[1:]]
    titles = "formula, range, needs, cost, options, source, known failure, exceptions"
    assert [title for title, _, _ in parts] == titles.split(", ")
    assert all(said.startswith("  ") for _, _, said in parts)
    assert max(map(len, text.splitlines())) <= 80


def test_one_reward_says_defaults_and_exceptions_without_torch() -> None:
    done = command("rewards", "supervised")
    assert (done.returncode, done.stderr) == (0, "loaded:\n")
    text = " ".join(done.stdout.split())
    assert 'alignment (default "after_completion"): Where the answer is scored' in text
    assert (
        "exceptions P2 (a longer part of the right answer never scores lower; the whole answer"
        in text
    )
    assert "with `alignment: positional`: P6 (" in text


def test_a_reward_that_does_not_exist_is_exit_2_with_a_suggestion() -> None:
    done = command("rewards", "superviesd")
    assert (done.returncode, done.stdout) == (2, "")
    message = "unknown reward 'superviesd'; did you mean 'supervised'?"
    assert done.stderr == f"1 problem:\n  {message}\nloaded:\n"


def test_a_long_count_is_told_by_tenths_where_no_one_watches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with progress.progress(silent=False) as watch:
        for done in range(101):
            watch.progress(done, 100)
        watch.progress(1, 3)
        watch.progress(3, 3)
    tenths = [f"{percent} % of 100" for percent in range(10, 101, 10)]
    assert capsys.readouterr().err.splitlines() == [*tenths, "30 % of 3", "100 % of 3"]


def test_a_long_count_moves_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.progress(silent=False) as watch:
        watch.progress(3, 7)
    assert "3/7" in capsys.readouterr().err


def test_score_shows_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def judge(config: object, source: Path, target: Path, watch: ProgressCallbacks) -> int:
        watch.stage("scoring 2 rows")
        watch.progress(1, 2)
        return 2

    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(score, "score_file", judge)
    commands.score(ROOT / "configs/supervised.yaml", Path("in.jsonl"), Path("out.jsonl"))
    printed = capsys.readouterr()
    assert printed.err == "scoring 2 rows\n50 % of 2\n"
    assert printed.out == "2 rows scored: out.jsonl\n"


def test_check_shows_a_bar_on_a_terminal_when_reading_takes_long(
    llama_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "{i}"}}\n' for i in range(20_000)))
    config = tmp_path / "c.yaml"
    config.write_text(f"model: {{name: '{llama_folder}'}}\ndata: {{train: '{rows}', eval: none}}\n")

    def shown(terminal: str, seconds: float) -> str:
        monkeypatch.setenv("FORCE_COLOR", terminal)
        monkeypatch.setattr("remote_trainer.progress.QUIET_SECONDS", seconds)
        commands.check(config, [])
        return capsys.readouterr().err

    assert "checking rows" in shown("1", -1.0)
    assert "checking rows" not in shown("1", 1e9)
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setattr("remote_trainer.progress.QUIET_SECONDS", -1.0)
    commands.check(config, [])
    assert capsys.readouterr().err == ""

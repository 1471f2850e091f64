"""Paths as people write them: what ~ means, what is refused, and that looking leaves no trace."""

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import ROOT, command

from remote_trainer.cache_folder import cache_folder
from remote_trainer.config import dump_config, load_config, parse_config
from remote_trainer.errors import UserInputError
from remote_trainer.models.resolve import find_model
from remote_trainer.paths import (
    FolderLock,
    expand,
    lock,
    refuse_if_locked,
    why_no_file,
    why_no_folder,
)
from remote_trainer.pipeline.check import check_config
from remote_trainer.pipeline.folder import (
    folder_problems,
    is_finished,
    move_aside,
    write_configs,
)
from remote_trainer.run_dir import RunDir, write_text

ME = pwd.getpwuid(os.getuid())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_a_tilde_is_the_home_folder_and_everything_else_stays(home: Path) -> None:
    assert expand("~/runs/a") == f"{home}/runs/a"
    assert expand("~") == str(home)
    assert expand(f"~{ME.pw_name}/runs") == f"{ME.pw_dir.rstrip('/')}/runs"
    for text in (
        "owner/model", "builtin/smollm2-135m-instruct", "auto", "none", "runs/a~b", "a b", "./x",
        "/data/50$ off", "cost$", "größe/模型", "~".join(["a", "b"]),
    ):  # fmt: skip
        assert expand(text) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("$HOME/runs", "variables such as $HOME are not expanded here"),
        ("${DATA}/train.jsonl", "variables such as ${DATA} are not expanded here"),
        ("runs/$USER-1", "variables such as $USER are not expanded here"),
        ("runs/$(date +%F)", "variables such as $(date +%F) are not expanded here"),
        ("runs/`date`", "variables such as `date` are not expanded here"),
        ("~nobody-of-this-name/x", "there is no user 'nobody-of-this-name'"),
        ("./~/x", "~ means the home folder only at the beginning"),
        ("runs/~/x", "~ means the home folder only at the beginning"),
        ("./~backup", "~ means the home folder only at the beginning"),
        ("", "found ''; write a path"),
        ("  ", "write a path"),
        ("runs/a\0b", r"contains the character '\x00'; remove it"),
        ("runs/a\n", r"contains the character '\n'; remove it"),
        ("runs/\udce9t\udce9", "is not UTF-8"),
        ("x" * 256, "a name in it is 256 bytes long; at most 255 are allowed"),
        ("ä" * 128, "a name in it is 256 bytes long"),
        ("a/" * 2100, "4200 bytes long; at most 4095"),
    ],
)
def test_what_must_never_become_a_file_says_what_to_write(text: str, told: str, home: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        expand(text)
    assert list(home.iterdir()) == []


KEYS = ["data.train", "data.eval", "model.name", "model.adapter", "output_dir"]


@pytest.mark.parametrize("key", KEYS)
def test_every_path_of_a_config_takes_a_tilde_and_no_variable(key: str, home: Path) -> None:
    start = "data: {train: a.jsonl}\n"
    config = parse_config(start, "c", [f"{key}=~/here"])
    value = json.loads(config.model_dump_json())
    for part in key.split("."):
        value = value[part]
    assert value == f"{home}/here"
    assert f"{home}/here" in dump_config(config)
    section, _, name = key.rpartition(".")
    more = "train: x, " if key == "data.eval" else ""
    line = f'{section}: {{{more}{name}: "$HERE/x"}}\n' if section else f'{name}: "$HERE/x"\n'
    with pytest.raises(UserInputError) as refused:
        parse_config(line, "c")
    (problem,) = refused.value.problems
    assert problem.where == "c:1"
    assert problem.message.startswith(f"{key}: found '$HERE/x', and variables such as $HERE")


def test_files_named_by_other_ways_take_a_tilde_too(
    home: Path, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "c.yaml").write_text("reward: {type: inverse_loss}\n")
    assert load_config("~/c.yaml").reward[0].type == "inverse_loss"
    (home / "model").symlink_to(llama_folder)
    assert find_model("~/model") == home / "model"
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", "~/cache")
    assert cache_folder() == home / "cache"
    monkeypatch.delenv("REMOTE_TRAINER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "$HOME/.cache")
    with pytest.raises(UserInputError, match=r"XDG_CACHE_HOME: .*such as \$HOME"):
        cache_folder()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "$HOME/c.yaml"], "variables such as $HOME"),
        (["report", "~/no-run"], "{home}/no-run: is not a run folder"),
        (["report", "x", "--output", "~nobody-of-this-name/r"], "there is no user"),
        (["score", "c", "--input", "~/no.jsonl", "--output", "$X/y"], "variables such as $X"),
        (["eval", "$MODEL", "--data", "x"], "variables such as $MODEL"),
        (["eval", "x", "--data", ""], "write a path"),
        (["chat", "~/no/such/model"], "no folder '{home}/no/such/model'"),
        (["export", "~/no-run"], "{home}/no-run: it is neither a run nor a checkpoint"),
        (["train", "c", "--resume", "runs/`x`"], "variables such as `x`"),
        (["doctor", "${{X}}"], "variables such as ${{X}}"),
    ],
)
def test_arguments_are_paths_as_people_write_them(
    arguments: list[str], message: str, home: Path
) -> None:
    given = [argument.format(home=home) for argument in arguments]
    done = command(*given, HOME=str(home), COLUMNS="400", TERM="dumb")
    assert done.returncode == 2, done.stderr
    told = " ".join(done.stderr.replace("│", " ").split())
    assert message.format(home=home) in told
    assert "Traceback" not in done.stderr
    assert list(home.iterdir()) == []
    assert not (ROOT / "~").exists()


def afile(tmp_path: Path) -> Path:
    file = tmp_path / "afile"
    file.write_text("x")
    return file


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("afile", "is a file; write the path of a folder"),
        ("afile/run", "afile is a file and cannot contain a folder"),
        ("afile/a/b/c", "afile is a file and cannot contain a folder"),
        ("dangling/run", "dangling is a broken link"),
        ("loop/run", "loop is a broken link"),
        ("new/" + "n" * 250, "its name is 250 bytes long; at most 23"),
        ("/proc/run", "cannot be written: /proc: "),
        ("/dev/null/run", "/dev/null is a file"),
    ],
)
def test_a_folder_that_cannot_be_made_is_known_without_making_it(
    name: str, told: str, tmp_path: Path
) -> None:
    afile(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(tmp_path.rglob("*"))
    why = why_no_folder(tmp_path / name)
    assert why is not None
    assert told in why
    config = parse_config(json.dumps({"output_dir": str(tmp_path / name)}), "c")
    (problem,) = folder_problems(config)
    assert problem.where == "output_dir"
    assert told in problem.message
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("there", "there/a/b/c", "new"):
        assert why_no_folder(tmp_path / name) is None
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.skipif(os.getuid() == 0, reason="permission bits do not count for root")
def test_a_folder_without_permission_is_told_with_the_reason(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert ": Permission denied" in str(why_no_folder(tmp_path / "a"))
    tmp_path.chmod(0o700)


NOBODY = 65534


@pytest.fixture
def open_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own is closed to others."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(place / "cache"))
    yield place
    shutil.rmtree(place)


# The child does nothing that needs other threads.
@pytest.mark.filterwarnings("ignore:.* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_what_another_user_may_not_enter_is_told_without_a_traceback(
    open_place: Path, llama_folder: Path
) -> None:
    """In a fork, because the interpreter itself may be out of reach for that user."""
    closed, model, data = (open_place / name for name in ("closed", "model", "rows.jsonl"))
    closed.mkdir(mode=0o700)
    shutil.copytree(llama_folder, model)
    model.chmod(0o755)
    data.write_text('{"prompt": "a"}\n' * 8)
    good = {"model": {"name": str(model)}, "data": {"train": str(data)}, "output_dir": "/tmp/x"}
    texts = [
        json.dumps(good | settings)
        for settings in (
            {"output_dir": str(closed / "a/b")},
            {"output_dir": str(closed)},
            {"model": {"name": str(closed / "model")}},
            {"model": {"name": str(model), "adapter": str(closed / "adapter")}},
        )
    ]

    def told(text: str) -> list[str]:
        config = parse_config(text, "c")
        assert not is_finished(RunDir(config.output_dir), config.export)
        try:
            refuse_if_locked(Path(config.output_dir))
            check_config(config)
        except UserInputError as error:
            return [problem.where for problem in error.problems]
        return []

    for text in texts:
        told(text)  # as root: imports all that the child needs
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.setuid(NOBODY)
        try:
            answer = json.dumps([told(text) for text in texts])
        except BaseException:
            answer = json.dumps(traceback.format_exc())
        os.write(writing, answer.encode())
        os._exit(0)
    os.waitpid(child, 0)
    found = json.loads(os.read(reading, 10_000))
    assert isinstance(found, list), found
    assert "output_dir" in found[0]
    assert "output_dir" in found[1]
    assert "model.name" in found[2]
    assert "model.adapter" in found[3]


def test_a_disk_that_refuses_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", read_only)
    why = why_no_folder(tmp_path / "a")
    assert why == f"cannot be written: {tmp_path}: Read-only file system; " + ("write another path")


def test_a_file_that_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    assert why_no_file(tmp_path / "new/rows.jsonl") is None
    assert why_no_file(afile(tmp_path)) is None
    assert "is a folder" in str(why_no_file(tmp_path))
    assert "is a device" in str(why_no_file(Path("/dev/null")))
    assert "is a file and cannot contain a folder" in str(why_no_file(tmp_path / "afile/x"))
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_else_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    config = parse_config(json.dumps({"output_dir": str(tmp_path)}), "c")
    (problem,) = folder_problems(config)
    assert "contains adapter, which a run would overwrite" in problem.message
    (tmp_path / "adapter").rmdir()
    (tmp_path / "notes.txt").write_text("a log of the user's own is no harm")
    assert folder_problems(config) == []


def test_a_config_of_the_user_s_is_not_overwritten(tmp_path: Path) -> None:
    folder, config = RunDir(tmp_path), parse_config("", "c")
    write_text(folder.config, "# mine\n")
    with pytest.raises(UserInputError, match="exists with another config"):
        write_configs(folder, config, "# another\n")
    write_configs(folder, config, "# mine\n")
    assert folder.started
    write_configs(folder, config, "# of the run, which goes on with a changed one\n")


# -- the lock -------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from remote_trainer.paths import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "a"


@pytest.fixture
def holder(folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    command = [sys.executable, "-c", HOLDER, str(folder), "of a run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_and_told_by_whom(
    folder: Path, holder: "subprocess.Popen[bytes]"
) -> None:
    with pytest.raises(UserInputError) as first:
        refuse_if_locked(folder, "output_dir")
    with pytest.raises(UserInputError) as second, FolderLock(folder, "output_dir"):
        pass
    write_text(RunDir(folder).resolved_config, "a: 1\n")
    with pytest.raises(UserInputError, match="--resume never"):
        move_aside(RunDir(folder))
    holder.kill()
    holder.wait()
    for told in (str(first.value), str(second.value)):
        assert told.startswith(f"output_dir: {folder} is being written by process {holder.pid} on ")
        assert " since 20" in told
        assert "(-c " in told  # its command
    assert (folder / lock.LOCK).exists()  # left by the killed process, and no obstacle
    refuse_if_locked(folder)
    with FolderLock(folder):
        pass
    assert not (folder / lock.LOCK).exists()


def test_a_lock_is_gone_with_its_block_and_so_is_a_folder_made_for_it(folder: Path) -> None:
    with FolderLock(folder):
        holder = json.loads((folder / lock.LOCK).read_text())
        assert holder["pid"] == os.getpid()
        with pytest.raises(UserInputError, match=f"process {os.getpid()}"), FolderLock(folder):
            pass
    assert not folder.exists()
    with FolderLock(folder):
        (folder / "x").touch()
    assert [path.name for path in folder.iterdir()] == ["x"]
    refuse_if_locked(folder)
    assert [path.name for path in folder.iterdir()] == ["x"]


# The child does nothing that needs other threads.
@pytest.mark.filterwarnings("ignore:.* is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_lock(folder: Path) -> None:
    with FolderLock(folder):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with FolderLock(folder):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_disk_without_locks_is_said_and_work_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with FolderLock(folder):
        (folder / "x").touch()
    assert "the disk does not support locks (No locks available)" in caplog.text
    refuse_if_locked(folder)


def test_a_run_is_moved_aside_with_nothing_left_of_the_lock(folder: Path) -> None:
    write_text(RunDir(folder).resolved_config, "a: 1\n")
    move_aside(RunDir(folder))
    assert [path.name for path in folder.parent.iterdir()] == ["a.1"]
    assert [path.name for path in (folder.parent / "a.1").iterdir()] == ["config.resolved.yaml"]
    folder.mkdir()  # no run: nothing to move
    move_aside(RunDir(folder))
    assert folder.exists()


def test_the_working_directory_is_not_moved_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(RunDir(folder).resolved_config, "a: 1\n")
    monkeypatch.chdir(folder)
    with pytest.raises(UserInputError, match="which contains the working directory"):
        move_aside(RunDir("."))

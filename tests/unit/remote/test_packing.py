"""What is sent to a cluster: nothing but config, data, program and reward functions."""

import io
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.config import load_config
from remote_trainer.errors import UserInputError
from remote_trainer.remote.packing import Package, entrypoint, pack


def project(folder: Path, **sections: Any) -> Path:
    """A folder with what must stay at home beside what is sent."""
    (folder / "data").mkdir()
    (folder / "data" / "rows.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    (folder / "checkpoints" / "step-000001").mkdir(parents=True)
    (folder / "checkpoints" / "step-000001" / "adapter.safetensors").write_bytes(b"weights")
    (folder / ".env").write_text("HF_TOKEN=hf_" + "a" * 30)
    config = {"data": {"train": "data/rows.jsonl", "eval": "none"}, **sections}
    (folder / "config.yaml").write_text(json.dumps(config))
    return folder / "config.yaml"


def packed(config: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    monkeypatch.chdir(config.parent)
    return pack(config, load_config(config, []))


def content_of(package: Package) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(package.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_config_data_and_program_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = packed(project(tmp_path), monkeypatch)
    content = content_of(package)
    ours = {name for name in content if not name.startswith("remote_trainer/")}
    assert ours == {"config.yaml", "data/train/rows.jsonl"}
    assert package.overrides == ("data.train=data/train/rows.jsonl",)
    assert "remote_trainer/cli/__main__.py" in content
    assert "remote_trainer/report/pages/page.html.j2" in content
    assert not any(b"weights" in content[name] or b"HF_TOKEN" in content[name] for name in ours)
    assert not any(name.endswith((".env", ".safetensors", ".pyc")) for name in content)


def test_the_same_content_has_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project(tmp_path)
    first = packed(config, monkeypatch)
    assert packed(config, monkeypatch).name == first.name
    (tmp_path / "data" / "rows.jsonl").write_text('{"prompt": "c", "answer": "b"}\n')
    assert packed(config, monkeypatch).name != first.name


def test_of_a_data_folder_only_visible_data_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project(tmp_path, data={"train": "shards", "eval": "none"})
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "0.jsonl").write_text('{"prompt": "a"}\n')
    (shards / ".token").write_text("secret")
    (shards / "model.safetensors").write_bytes(b"weights")
    (shards / "notes.txt").write_text("private")
    names = [name for name in packed(config, monkeypatch).files if name.startswith("data/")]
    assert names == ["data/train/shards/0.jsonl"]
    (shards / "link.jsonl").symlink_to(tmp_path / ".env")
    with pytest.raises(UserInputError, match=r"link\.jsonl: is a link, and links are not sent"):
        packed(config, monkeypatch)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_data_of_any_format_is_sent(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project(tmp_path, data={"train": name, "eval": name})
    (tmp_path / name).write_bytes(b"PAR1")
    package = packed(config, monkeypatch)
    content = content_of(package)
    for key in ("train", "eval"):
        assert content[f"data/{key}/{name}"] == b"PAR1"
        assert f"data.{key}=data/{key}/{name}" in package.overrides


def test_of_a_dataset_of_the_hub_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project(tmp_path, data={"train": "owner/name:main:train", "eval": "owner/name:test"})
    package = packed(config, monkeypatch)
    assert not [name for name in package.files if name.startswith("data/")]
    assert package.overrides == ()


def test_secrets_and_local_models_are_refused_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    config = project(
        tmp_path,
        model={"name": "./model"},
        training={"trl": {"hub_token": "hf_" + "b" * 30}},
    )
    with pytest.raises(UserInputError) as refused:
        packed(config, monkeypatch)
    where = [problem.where for problem in refused.value.problems]
    assert where == ["model.name", "config.yaml:1"]
    assert "hf_bbb..." in str(refused.value)
    assert "b" * 30 not in str(refused.value)


def test_a_missing_file_is_named_and_a_path_of_the_other_machine_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project(tmp_path, data={"train": "rows.jsonl", "eval": "/there/eval.jsonl"})
    with pytest.raises(UserInputError, match=r"^data\.train: no file or folder 'rows\.jsonl' here"):
        packed(config, monkeypatch)


@pytest.mark.parametrize(("code", "last"), [("exit 0", "0"), ("exit 3", "3")])
def test_a_command_at_the_end_gets_the_exit_code_and_keeps_it(code: str, last: str) -> None:
    words = ["config.yaml", "--set", "data.system_prompt=it's $HOME"]
    command = entrypoint(words, "echo done $REMOTE_TRAINER_EXIT_CODE")
    assert entrypoint(words, None).removeprefix("exec ") in command
    begun, _, rest = command.partition("; ")
    train, _, end = rest.partition("; ")
    assert "'data.system_prompt=it'\"'\"'s $HOME'" in train
    done = subprocess.run(
        ["sh", "-c", f"{begun}; ({code}); {end}"], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"done {last}\n"
    assert done.returncode == int(last)

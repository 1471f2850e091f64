"""The base of a run is found again from anywhere, and nobody else's model is taken for it."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from test_pipeline import data_files, text_for

from remote_trainer.config import parse_config
from remote_trainer.errors import UserInputError
from remote_trainer.models import weights_hash
from remote_trainer.models.resolve import find_model
from remote_trainer.models.weights_hash import weights_sha256
from remote_trainer.pipeline.base_model import (
    BaseRecord,
    base_at_hand,
    base_of,
    base_to_train,
    read_record,
)
from remote_trainer.pipeline.chat import open_chat
from remote_trainer.pipeline.check import check_config
from remote_trainer.pipeline.evaluate import evaluate_model
from remote_trainer.pipeline.export import export_trained
from remote_trainer.pipeline.export_place import place_of
from remote_trainer.pipeline.train import run
from remote_trainer.run_dir import RunDir, write_json

__all__ = ["data_files"]  # a fixture

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(name: str, **_: Any) -> None:
        raise AssertionError(f"the hub was asked for {name}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", ask)


def with_other_weights(model: Path, target: Path) -> Path:
    shutil.copytree(model, target)
    weights = load_file(target / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


# -- the hash -------------------------------------------------------------------------------------


def test_the_hash_is_of_the_tensors_and_not_of_their_files(
    llama_folder: Path, tmp_path: Path
) -> None:
    weights = load_file(llama_folder / "model.safetensors")
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(json.dumps([name, "F32", list(tensor.shape)]).encode())
        digest.update(tensor.numpy().tobytes())
    assert weights_sha256(llama_folder) == digest.hexdigest()
    shards = tmp_path / "shards"
    shards.mkdir()
    names = list(weights)
    parts = {"b.safetensors": names[:3], "a.safetensors": names[3:]}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, shards / file, {"by": "another"})
    places = {name: file for file, own in parts.items() for name in own}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    save_file({"x": weights[names[0]]}, shards / "of-something-else.safetensors")
    assert weights_sha256(shards) == digest.hexdigest()
    other = with_other_weights(llama_folder, tmp_path / "other")
    assert weights_sha256(other) != digest.hexdigest()


def test_a_hash_is_kept_until_a_file_changes(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(llama_folder, model)
    first = weights_sha256(model)
    monkeypatch.setattr(weights_hash, "_digest", lambda files: "computed anew")
    assert weights_sha256(model) == first
    weights = load_file(model / "model.safetensors")
    save_file(weights, model / "model.safetensors", {"format": "pt2"})
    assert weights_sha256(model) == "computed anew"


def test_a_cache_that_cannot_be_written_costs_time_only(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    first = weights_sha256(llama_folder)
    (tmp_path / "afile").touch()
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path / "afile"))
    assert weights_sha256(llama_folder) == first
    assert "weights will be hashed again" in caplog.text


def test_the_size_is_told_where_it_takes_long(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_hash, "REPORTED_BYTES", 1)
    told: list[str] = []
    weights_sha256(llama_folder, told.append)
    assert told == [f"hashing the 0.0 GB of {llama_folder}"]


# -- a run with a relative name -------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_once(
    llama_folder: Path, data_files: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a model, data, a config that names them relatively, and the run made there."""
    here = tmp_path_factory.mktemp("made") / "here"
    (here / "models").mkdir(parents=True)
    shutil.copytree(llama_folder, here / "models/tiny")
    for file in data_files:
        shutil.copy(file, here)
    settings = json.loads(text_for(Path("models/tiny"), data_files, Path("run")))
    settings["data"] = {"train": "train.jsonl", "eval": "eval.jsonl"}
    settings["training"] |= {"max_steps": 1}
    (here / "c.yaml").write_text(json.dumps(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMOTE_TRAINER_CACHE", str(here.parent / "cache"))
        patch.chdir(here)
        run(parse_config(json.dumps(settings), "c"), json.dumps(settings))
    return here


@pytest.fixture
def made(made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """The run as if it had been made in tmp_path/here, which is the working directory."""
    here = tmp_path / "here"
    shutil.copytree(made_once, here)
    base = RunDir(here / "run").base
    base.write_text(base.read_text().replace(str(made_once), str(here)))
    monkeypatch.chdir(here)
    return RunDir(here / "run")


def test_what_a_run_is_trained_on_stands_in_its_folder(made: RunDir, llama_folder: Path) -> None:
    record = read_record(made)
    here = made.root.parent
    assert record == BaseRecord(
        name="models/tiny",
        revision=None,
        path=str(here / "models/tiny"),
        commit=None,
        weights_sha256=weights_sha256(llama_folder),
        made_in=str(here),
    )


def test_a_run_is_used_from_another_folder(
    made: RunDir, data_files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None
) -> None:
    at_home = evaluate_model(str(made), data_files[1], base=True, against=None)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert evaluate_model(str(made), data_files[1], base=True, against=None) == at_home
    speakers, _ = open_chat(str(made), base=True)
    assert set(speakers) == {"trained", "base"}
    _, proof = export_trained(made.root, "merged_16bit", output=elsewhere / "merged")
    assert proof["verdict"] != "FAIL"
    # A model of that name which is there now is another one, and is not taken.
    with_other_weights(made.root.parent / "models/tiny", elsewhere / "models/tiny")
    assert evaluate_model(str(made), data_files[1], base=True, against=None) == at_home


def test_a_base_that_moved_is_named_and_known_by_its_weights(
    made: RunDir, data_files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None
) -> None:
    at_home = evaluate_model(str(made), data_files[1], base=False, against=None)
    moved, other = tmp_path / "moved", tmp_path / "other"
    (made.root.parent / "models/tiny").rename(moved)
    with_other_weights(moved, other)
    monkeypatch.chdir(tmp_path)
    for command in (
        lambda *more: evaluate_model(str(made), data_files[1], False, None, *more),
        lambda *more: open_chat(str(made), False, *more),
        lambda *more: export_trained(made.root, "lora", None, tmp_path / "x", *more),
    ):
        with pytest.raises(UserInputError, match=r"write --set model\.name=FOLDER") as refused:
            command()
        (problem,) = refused.value.problems
        assert problem.where == "model.name"
        missing = "was not found, neither as 'models/tiny' in the working directory nor in"
        assert missing in problem.message
    with pytest.raises(UserInputError, match=f"the weights in {other} differ from those that"):
        evaluate_model(str(made), data_files[1], False, None, [f"model.name={other}"])
    again = evaluate_model(str(made), data_files[1], False, None, [f"model.name={moved}"])
    assert again == at_home


def test_training_goes_on_with_the_base_it_began_with(
    made: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None
) -> None:
    text = (made.root.parent / "c.yaml").read_text()
    here = made.root.parent
    monkeypatch.chdir(tmp_path)
    # From elsewhere, with names of files that are right there: the model's is known to the run.
    settings = json.loads(text)
    settings["output_dir"] = str(made)
    settings["data"] = {"train": str(here / "train.jsonl"), "eval": str(here / "eval.jsonl")}
    config = parse_config(json.dumps(settings), "c")
    assert base_at_hand(config) == here / "models/tiny"
    assert check_config(config).base == here / "models/tiny"
    assert run(config, text)["after"] == json.loads(made.eval.read_text())["after"]
    (here / "models/tiny").rename(here / "models/tiny2")
    missing = "was not found, neither as 'models/tiny' in the working directory nor in"
    with pytest.raises(UserInputError, match=missing):
        base_to_train(config)


def test_a_model_of_the_hub_stays_the_commit_a_run_began_with(
    made: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []
    snapshot = tmp_path / "snapshots" / COMMIT
    shutil.copytree(made.root.parent / "models/tiny", snapshot)

    def download(name: str, revision: str | None = None, **_: Any) -> str:
        asked.append((name, revision))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    record = json.loads(made.base.read_text())
    write_json(made.base, {**record, "name": "owner/tiny", "path": None, "commit": COMMIT})
    text = json.dumps({"model": {"name": "owner/tiny"}, "output_dir": str(made)})
    config = parse_config(text, "c")
    assert base_of(made, config) == base_at_hand(config) == base_to_train(config) == snapshot
    assert set(asked) == {("owner/tiny", COMMIT)}


def test_a_run_from_before_is_looked_up_by_its_name(made: RunDir, llama_folder: Path) -> None:
    made.base.unlink()
    config = parse_config(json.dumps({"model": {"name": str(llama_folder)}}), "c")
    assert base_of(made, config) == llama_folder
    made.base.write_text("{}")
    with pytest.raises(UserInputError, match=r"base\.json: is damaged"):
        base_of(made, config)


def test_what_is_given_away_tells_nothing_of_this_machine(
    llama_folder: Path, data_files: Any, tmp_path: Path
) -> None:
    export = {"formats": ["lora", "merged_16bit"]}
    text = text_for(llama_folder, data_files, tmp_path / "run", export=export)
    settings = json.loads(text)
    settings["training"]["max_steps"] = 1
    run(parse_config(json.dumps(settings), "c"), text)
    shared = [tmp_path / "run" / name for name in ("adapter", "merged_16bit")]
    files = [file for folder in shared for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 8
    for file in files:
        written = file.read_bytes()
        assert not [p for p in (tmp_path, llama_folder) if str(p).encode() in written], file
    card = (shared[0] / "README.md").read_text()
    assert f"Base model: `./{llama_folder.name}`" in card
    assert "base_model:" not in card.split("---")[1]
    settings = json.loads((shared[0] / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == f"./{llama_folder.name}"


# -- exports to a folder that the user names ------------------------------------------------------


def test_an_export_never_replaces_what_is_no_export(made: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert place_of(made, None, "merged_16bit", out) == out
    out.mkdir()
    assert place_of(made, None, "merged_16bit", out) == out
    (out / "thesis.tex").write_text("years of work")
    for folder in (out, made.root, made.adapter, made.root / "base.json", out / "thesis.tex/x"):
        with pytest.raises(UserInputError, match=f"--output: {folder}: "):
            place_of(made, None, "merged_16bit", folder)
    write_json(out / "proof.json", {"format": "merged_16bit"})
    assert place_of(made, None, "merged_16bit", out) == out
    with pytest.raises(UserInputError, match="is not an export of the format lora"):
        place_of(made, None, "lora", out)
    (tmp_path / "link").symlink_to(made.root)
    assert place_of(made, None, "lora", tmp_path / "link/adapter") == made.adapter
    assert list(out.iterdir())


def test_an_export_of_another_adapter_is_not_taken_for_this_one(
    made: RunDir, tmp_path: Path
) -> None:
    folder, first = export_trained(made.root, "merged_16bit", output=tmp_path / "out")
    before = load_file(folder / "model.safetensors")
    assert export_trained(made.root, "merged_16bit", output=folder) == (folder, first)
    weights = made.adapter / "adapter_model.safetensors"
    tensors = {name: 3 * tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    _, second = export_trained(made.root, "merged_16bit", output=folder)
    assert second["adapter_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert second["adapter_sha256"] != first["adapter_sha256"]
    after = load_file(folder / "model.safetensors")
    assert any((before[name] != after[name]).any() for name in before)


# -- names that are no model's --------------------------------------------------------------------


def test_an_adapter_or_a_run_as_model_names_the_right_key(
    made: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.root.parent)
    checkpoint = made.checkpoint(1)
    for folder in (made.root, checkpoint):
        with pytest.raises(
            UserInputError, match="is a run or a checkpoint, which holds"
        ) as refused:
            find_model(str(folder))
        assert f"write adapter: {folder} and name: models/tiny in the section" in str(refused.value)
    with pytest.raises(UserInputError, match="is a LoRA adapter") as refused:
        find_model(str(made.adapter))
    told = str(refused.value)
    assert told.startswith("model.name: ")
    assert f"write adapter: {made.adapter} in the section model" in told
    assert "its base, according to its config models/tiny" in told
    alone = tmp_path / "alone"
    shutil.copytree(made.adapter, alone)
    with pytest.raises(UserInputError, match=r"its base, according to its config \./tiny"):
        find_model(str(alone))
    both = tmp_path / "both"
    shutil.copytree(made.root.parent / "models/tiny", both)
    shutil.copy(made.adapter / "adapter_config.json", both)
    with pytest.raises(UserInputError, match="as well as a whole model"):
        find_model(str(both))


def test_a_model_with_a_lost_shard_names_it(llama_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(llama_folder, model)
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})
    )
    with pytest.raises(UserInputError, match=r"lacks model-2\.safetensors, which its index lists"):
        find_model(str(model))

"""What check and train say of a model's files, before its weights are read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tokenizer
from test_cli import command
from test_pipeline import cache, data_files
from tiny_models import make_family

from remote_trainer.checks.model_check import settle
from remote_trainer.checks.positions import context_length
from remote_trainer.config import load_config, parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.errors import UserInputError
from remote_trainer.evaluation import length_limit
from remote_trainer.models.model_facts import ModelFacts
from remote_trainer.pipeline.backend import adapter_settings
from remote_trainer.pipeline.check import check_config
from remote_trainer.pipeline.evaluate import evaluate_model
from remote_trainer.pipeline.train import run
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.records import AdapterSettings, LoadSettings
from remote_trainer.run_dir import RunDir, read_jsonl

__all__ = ["cache", "data_files"]  # fixtures

Text = Callable[..., str]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Family and changes -> a saved model, made once."""
    made: dict[str, Path] = {}

    def folder(family: str, **changes: Any) -> Path:
        key = family + repr(changes)
        if key not in made:
            made[key] = make_family(family, tmp_path_factory.mktemp("m"), **changes)
        return made[key]

    return folder


@pytest.fixture
def text_for(data_files: Any, tmp_path: Path) -> Text:
    """A config as text; sections replace keys of the usual ones."""

    def text(base: Path, **sections: dict[str, Any]) -> str:
        usual: dict[str, dict[str, Any]] = {
            "model": {"name": str(base)},
            "lora": {"r": 4, "alpha": 8},
            "data": {"train": str(data_files[0]), "eval": "none"},
            "reward": {"type": "inverse_loss", "truncated": "score"},
            "training": {
                "num_generations": 4, "gradient_accumulation_steps": 2, "max_prompt_length": 40,
                "max_completion_length": 6, "max_steps": 2, "learning_rate": 1e-2,
                "group_filter": {"min_std": 0},
            },
            "guard": {"action": "off"},
        }  # fmt: skip
        merged = {k: {**usual.get(k, {}), **sections.get(k, {})} for k in {*usual, *sections}}
        return json.dumps({**merged, "output_dir": str(tmp_path / "run")})

    return text


def told(text: str) -> dict[str, str]:
    """Problems by their place."""
    try:
        check_config(parse_config(text, "c"))
    except UserInputError as error:
        return {problem.where: problem.message for problem in error.problems}
    return {}


# -- layers that get an adapter -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "names", "layers"),
    [
        ("gpt2", ("c_attn", "c_proj", "c_fc"), 8),
        ("opt", ("k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"), 12),
        ("bloom", ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"), 8),
        ("falcon", ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"), 8),
    ],
)
def test_auto_is_what_the_model_in_memory_gets(
    family: str, names: tuple[str, ...], layers: int, folders: Any, text_for: Text
) -> None:
    config = parse_config(text_for(folders(family)), "c")
    targets = check_config(config).targets
    assert targets is not None
    assert (set(targets.names), targets.layers) == (set(names), layers)
    backend = TransformersBackend.load(folders(family), LoadSettings())
    backend.add_adapter(adapter_settings(settle(config, ModelFacts(folders(family)))))
    trained = [name for name, p in backend.model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * layers
    assert all(name.split(".lora_")[0].rpartition(".")[2] in names for name in trained)
    other = TransformersBackend.load(folders(family), LoadSettings())
    other.add_adapter(AdapterSettings(4, 8, 0.0, ("auto",), seed=0))  # without a look at files
    assert [name for name, p in other.model.named_parameters() if p.requires_grad] == trained


def test_an_older_run_that_lists_the_seven_goes_on(
    llama_folder: Path, text_for: Text, cache: Path
) -> None:
    text = text_for(llama_folder, model={"max_seq_length": 256})
    config = parse_config(text, "c")
    result = run(config, text)
    folder = RunDir(config.output_dir)
    assert load_config(folder.resolved_config).lora.target_modules == (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    resolved = folder.resolved_config.read_text()
    older = "".join(x for x in resolved.splitlines(True) if "disable_dropout" not in x)
    assert older != resolved
    folder.resolved_config.write_text(older)
    assert run(config, text) == result  # no difference


def test_a_name_that_finds_nothing_beside_one_that_does_is_told(
    folders: Any, text_for: Text
) -> None:
    text = text_for(folders("gpt2"), lora={"target_modules": ["c_attn", "c_prj"]})
    (warning,) = check_config(parse_config(text, "c")).warnings
    assert "'c_prj' matches no layer" in warning
    assert "linear layers are c_attn, c_proj, c_fc" in warning
    assert "did you mean 'c_proj' for 'c_prj'?" in warning


@pytest.mark.parametrize(
    ("family", "names", "sentence"),
    [
        (
            "gpt2",
            ["q_proj", "v_proj"],
            "no linear layer of .* such a name; its linear layers are c_attn, c_pro",
        ),
        ("gpt2", ["c_atn"], "did you mean 'c_attn' for 'c_atn'?"),
        ("gpt2", ["c_attn", "wte"], "wte is an embedding .* two share one weight in this model"),
        ("llama, tied", ["q_proj", "embed_tokens"], "embed_tokens is an embedding .* share one"),
        ("llama", ["q_proj", "input_layernorm"], "input_layernorm is a norm"),
        ("llama", ["self_attn"], "self_attn is a block of several layers"),
    ],
)
def test_names_that_cannot_be_are_refused_before_the_base_is_loaded(
    family: str,
    names: list[str],
    sentence: str,
    folders: Any,
    text_for: Text,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = text_for(folders(family), lora={"target_modules": names})
    found = told(text)
    assert list(found) == ["lora.target_modules"]
    with pytest.raises(UserInputError, match=sentence):
        raise UserInputError.at("lora.target_modules", found["lora.target_modules"])
    monkeypatch.setattr("remote_trainer.pipeline.train.load_trainable", None)
    with pytest.raises(UserInputError, match=sentence):
        run(parse_config(text, "c"), text)


def test_words_and_lists_are_told_apart() -> None:
    def asked(value: str) -> Any:
        return parse_config(f"lora: {{target_modules: {value}}}", "c").lora

    assert asked("auto").requested == "auto"
    assert asked("all-linear").requested == "all-linear"
    assert asked("[q_proj]").requested == ("q_proj",)
    for wrong, sentence in (
        ("q_proj", r"found 'q_proj'; write auto, all-linear, or a list: \[q_proj\]"),
        ("[auto, q_proj]", "auto cannot be combined with other names"),
        ("[]", r"found \[\]; write at least one entry"),
        ("[lm_head]", "lm_head cannot have an adapter"),
    ):
        with pytest.raises(UserInputError, match=sentence):
            asked(wrong)


def test_the_command_prints_the_layers_without_torch(
    folders: Any, text_for: Text, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(text_for(folders("gpt2")))
    done = command("check", tmp_path / "c.yaml")
    assert (done.returncode, done.stderr) == (0, "loaded:\n")
    assert "adapter on 8 layers: c_attn (2), c_proj (4), c_fc (2)" in done.stdout
    done = command("check", tmp_path / "c.yaml", "--json", "--set", "lora.target_modules=[wpe]")
    assert (done.returncode, done.stderr) == (2, "loaded:\n")
    assert json.loads(done.stdout)["problems"][0]["where"] == "lora.target_modules"


# -- positions ------------------------------------------------------------------------------------

LONG = {"max_prompt_length": 60}


def test_learnt_positions_that_the_lengths_reach_are_a_problem(
    folders: Any, text_for: Text
) -> None:
    for family, key in (("gpt2", r" \(n_positions in its config.json\)"), ("opt", "")):
        found = told(text_for(folders(family), training=LONG))
        assert list(found) == ["training.max_completion_length"]
        with pytest.raises(ValueError, match=rf"= 66 tokens .*max_position_embeddings=64{key}"):
            raise ValueError(found["training.max_completion_length"])


@pytest.mark.parametrize(("family", "told"), [("llama", "on"), ("mistral", "off in part, because")])
def test_check_tells_of_the_fast_path_without_torch(
    family: str, told: str, folders: Any, text_for: Text, tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_text(text_for(folders(family)))
    done = command("check", tmp_path / "c.json", "--json")
    assert (done.returncode, done.stderr) == (0, "loaded:\n")
    assert json.loads(done.stdout)["fast_path"].startswith(told)
    assert f"according to the model files: {told}" in command("check", tmp_path / "c.json").stdout


def test_train_goes_on_where_no_row_is_that_long_and_tells_what_it_did(
    folders: Any, text_for: Text, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lora = {"target_modules": ["c_attn", "c_prj"]}
    text = text_for(folders("gpt2"), training=LONG, lora=lora)
    stages: list[str] = []
    run(parse_config(text, "c"), text, watch=ProgressCallbacks(stage=stages.append))
    resolved = load_config(RunDir(parse_config(text, "c").output_dir).resolved_config)
    assert len(read_jsonl(RunDir(parse_config(text, "c").output_dir).metrics)) == 2
    assert "adapter on 2 layers: c_attn (2 each)" in stages
    assert "'c_prj' matches no layer of the model" in caplog.text
    assert resolved.lora.target_modules == ("c_attn", "c_prj")
    assert resolved.training.max_prompt_length == 64 - 6
    assert resolved.model.max_seq_length == 64
    assert any("max_prompt_length is lowered from 60 to 58" in stage for stage in stages)
    long = text_for(folders("gpt2"), training={"max_prompt_length": 8, "max_completion_length": 60})
    with pytest.raises(UserInputError, match=r"training\.max_completion_length"):
        run(parse_config(long, "c"), long)


def test_a_written_length_over_learnt_positions_is_a_problem(folders: Any, text_for: Text) -> None:
    found = told(text_for(folders("opt"), model={"max_seq_length": 100}))
    assert "100 is over the model's max_position_embeddings=64" in found["model.max_seq_length"]
    config = parse_config(text_for(folders("opt")), "c")
    (note,) = check_config(config).notes
    assert note.startswith("model.max_seq_length is lowered from 2048 to 64")


def test_rotary_positions_are_noted(folders: Any, text_for: Text) -> None:
    folder = folders("llama", max_position_embeddings=40)
    lowered, over = check_config(parse_config(text_for(folder), "c")).notes
    assert "lowered from 2048 to 46" in lowered  # a prompt and a completion have to fit
    assert "= 46 tokens, over the model's max_position_embeddings=40" in over
    written = text_for(folder, model={"max_seq_length": 100})
    notes = check_config(parse_config(written, "c")).notes
    assert any("model.max_seq_length = 100 tokens, over" in note for note in notes)


def test_evaluation_keeps_within_learnt_positions(
    folders: Any, text_for: Text, data_files: Any, cache: Path
) -> None:
    folder = folders("gpt2")
    found = told(
        text_for(
            folder,
            data={"eval": str(data_files[1])},
            evaluation={"max_completion_length": 60},
        )
    )
    assert set(found) == {"evaluation.max_completion_length"}
    text = text_for(folder, data={"eval": str(data_files[1])}, evaluation={"samples": 1})
    result = run(parse_config(text, "c"), text)
    assert result["after"]["rows"] == 4
    bare = evaluate_model(str(folder), data_files[1], False, None, ["evaluation.samples=1"])
    assert bare["after"]["rows"] == 4
    config = settle(parse_config(text, "c"), ModelFacts(folder))
    assert context_length(config, ModelFacts(folder)) == 64


def test_held_out_answers_are_shortened_by_what_stands_in_front() -> None:
    from types import SimpleNamespace

    from remote_trainer.records import EncodedRow, Row

    def limit(positions: int | None, asked: int | None, answer: str = "x" * 20) -> int:
        prompt_tokenizer = SimpleNamespace(encode=lambda text: tuple(text))
        backend: Any = SimpleNamespace(prompt_tokenizer=prompt_tokenizer, most_positions=positions)
        rows = [EncodedRow(Row("p", {"answer": answer}, "f:1"), tuple(range(30)), "p")]
        return length_limit(rows, "answer", backend, asked)

    assert limit(None, None) == 80  # four times the reference
    assert limit(None, 7) == 7
    assert limit(100, None) == 100 - 30 - 20 - 16  # prompt, reference, what stands between
    assert limit(100, 7) == 7
    assert limit(100, 90) == 34
    assert limit(100, None, "") == 64


# -- tokens ---------------------------------------------------------------------------------------


def with_tokens(*added: str) -> Any:
    tokenizer = make_tokenizer(adds_bos=True)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
    return tokenizer, rows


def test_tokens_without_a_row_are_a_problem_where_they_are_said(
    text_for: Text, tmp_path: Path
) -> None:
    tokenizer, rows = with_tokens("<|domain|>")
    folder = make_family("llama", tmp_path / "m", tokenizer, vocab_size=rows)
    (note,) = [
        n for n in check_config(parse_config(text_for(folder), "c")).notes if "tokenizer" in n
    ]
    assert f"'<|domain|>' ({rows}); no row contains" in note
    data = tmp_path / "data.jsonl"
    lines = [{"prompt": f"{'<|domain|>' if i == 3 else ''} What is {i}?"} for i in range(8)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = told(text_for(folder, data={"train": str(data)}))
    assert "'<|domain|>' occurs in the data" in found["model.name"]


def test_words_without_a_row_are_a_problem(text_for: Text, tmp_path: Path) -> None:
    folder = make_family("llama", tmp_path / "m", vocab_size=280)
    found = told(text_for(folder))
    assert "embedding has only 280 rows" in found["model.name"]
    assert "and " in found["model.name"]


def change(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    known = json.loads(path.read_text()) if path.exists() else {}
    kept = {k: v for k, v in {**known, **values}.items() if v is not None}
    path.write_text(json.dumps(kept))


def test_a_model_that_cannot_end_is_a_problem(
    llama_folder: Path, text_for: Text, tmp_path: Path
) -> None:
    folder = shutil.copytree(llama_folder, tmp_path / "m")
    change(folder, "tokenizer_config.json", eos_token=None)
    assert told(text_for(folder)) == {}  # the model itself names one
    change(folder, "config.json", eos_token_id=None)
    change(folder, "generation_config.json", eos_token_id=None)
    found = told(text_for(folder))
    assert "no end-of-sequence token" in found["model.name"]
    assert 'for instance "eos_token": "</s>"' in found["model.name"]


def test_an_end_that_the_template_never_writes_is_a_warning(
    llama_folder: Path, text_for: Text, tmp_path: Path
) -> None:
    folder = shutil.copytree(llama_folder, tmp_path / "m")
    assert check_config(parse_config(text_for(folder), "c")).warnings == []
    change(folder, "tokenizer_config.json", eos_token="<pad>")
    change(folder, "generation_config.json", eos_token_id=0)
    (warning,) = check_config(parse_config(text_for(folder), "c")).warnings
    assert "may never stop: a completion ends at '<pad>', but the chat template writes '</s>'" in (
        warning
    )
    assert "eos_token_id in the model's generation_config.json, which may be a list: [0, 2]" in (
        warning
    )
    change(folder, "generation_config.json", eos_token_id=[0, 2])
    assert check_config(parse_config(text_for(folder), "c")).warnings == []


def test_no_pad_token_and_a_wide_head_need_no_word(
    text_for: Text, tmp_path: Path, cache: Path
) -> None:
    tokenizer = make_tokenizer(adds_bos=True)
    tokenizer.pad_token = None
    wide = {"pad_token_id": None, "vocab_size": len(tokenizer) + 900}
    folder = make_family("llama", tmp_path / "m", tokenizer, **wide)
    text = text_for(folder, model={"max_seq_length": 256})
    plan = check_config(parse_config(text, "c"))
    assert (plan.notes, plan.warnings) == ([], [])
    run(parse_config(text, "c"), text)
    lines = read_jsonl(RunDir(parse_config(text, "c").output_dir).metrics)
    assert len(lines) == 2

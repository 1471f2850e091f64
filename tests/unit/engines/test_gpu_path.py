"""The engines for a GPU, as far as they can be followed without one.

Two runs go through the whole pipeline, TRL's own vLLM code included, in processes of their own in
which `tests/fakes` stands for vLLM and Unsloth. Whether these are like the real packages is what
`tests/gpu_contract` checks.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_export import TARGETS, write_adapter

from remote_trainer.config import parse_config
from remote_trainer.engines.selection import EngineChoice, Facts
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.engines.unsloth_backend import UnslothBackend
from remote_trainer.engines.unsloth_import import import_unsloth
from remote_trainer.engines.vllm_sampling import (
    draws_plainly,
    ids_and_logprobs,
    sampling_fields,
    seeds,
)
from remote_trainer.errors import EngineError, UserInputError
from remote_trainer.inference.padded_rows import padded_scores
from remote_trainer.models.modes import scoring_mode
from remote_trainer.pipeline import backend as choosing
from remote_trainer.pipeline.backend import describe_engine, engine_of, with_auto_resolved
from remote_trainer.pipeline.check import batch_plan, engine_problems
from remote_trainer.records import LoadSettings, Sampling, ScoreRequest
from remote_trainer.run_dir import RunDir, read_jsonl
from remote_trainer.trainer.trl_settings import batch_settings, trl_settings

FAKES = Path(__file__).parents[2] / "fakes"
DESIGN = Path(__file__).parents[3] / "configs" / "original_design.yaml"
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WHOLE_GPU = Facts(
    cuda=True, capability=(8, 0), bitsandbytes=True, unsloth=True, vllm=True, bnb_plugin=True
)


def settings(model_folder: Path, folder: Path, **changes: dict[str, Any]) -> dict[str, Any]:
    """A config of defaults, for a tiny model on a few rows."""
    lines = [{"prompt": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(16)]
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {
        "model": {"name": str(model_folder), **changes.get("model", {})},
        "data": {"train": str(data), "eval": "none"},
        "reward": [
            {"type": "supervised", "scored_by": "policy"},
            {"type": "inverse_loss", "truncated": "score", "scored_by": "policy"},
        ],
        "training": {
            "max_steps": 2,
            "max_prompt_length": 64,
            "max_completion_length": 6,
            **changes.get("training", {}),
        },
        "generation": changes.get("generation", {}),
        "output_dir": str(folder / "run"),
    }


def in_own_process(
    folder: Path, asked: dict[str, Any], *script: str, ends_at: int = 0
) -> tuple[Any, str]:
    """(what train_with_fakes.py or ``script`` printed, the error output)"""
    config = folder / "config.json"
    config.write_text(json.dumps(asked))
    path = os.pathsep.join([str(FAKES), str(Path(choosing.__file__).parents[2])])
    (folder / "work").mkdir()
    done = subprocess.run(
        [sys.executable, *(script or (str(FAKES / "train_with_fakes.py"), str(config)))],
        env={
            **os.environ,
            "PYTHONPATH": path,
            "REMOTE_TRAINER_CACHE": str(folder / "cache"),
            "FAKE_VLLM_ENDS_AT": str(ends_at),
        },
        cwd=folder / "work",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.fixture(scope="module")
def by_vllm(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, RunDir]:
    folder = tmp_path_factory.mktemp("vllm")
    asked = settings(
        llama_folder,
        folder,
        model={"backend": "transformers", "dtype": "bfloat16"},
        generation={"engine": "vllm"},
        training={"learning_rate": 1e-2, "max_steps": 2, "gradient_accumulation_steps": 1},
    )
    return in_own_process(folder, asked)[0], RunDir(asked["output_dir"])


@pytest.fixture(scope="module")
def by_unsloth(wide_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, RunDir]:
    """The numbers of the first design, only fewer updates."""
    folder = tmp_path_factory.mktemp("unsloth")
    design = yaml.safe_load(DESIGN.read_text())
    model, training = {"max_seq_length": 2048}, {**design["training"], "max_steps": 1}
    asked = settings(wide_folder, folder, model=model, training=training)
    held_out = folder / "eval.jsonl"
    held_out.write_text(json.dumps({"prompt": "What is 1 + 2?", "answer": "3"}) + "\n")
    asked["data"]["eval"], asked["evaluation"] = str(held_out), {"samples": 1}
    return in_own_process(folder, asked, ends_at=6)[0], RunDir(asked["output_dir"])


def test_vllm_gets_the_weights_of_each_update_and_sleeps_in_between(by_vllm: Any) -> None:
    seen, _ = by_vllm
    update = ["wake weights", "reset cache", "wake kv_cache", "generate", "sleep 2"]
    assert seen["vllm"] == ["sleep 2", *update, *update]
    (made,) = seen["engines"]
    assert made["enable_sleep_mode"] == "True"
    assert made["max_model_len"] == "256"  # what the tiny model has positions for
    assert made["logprobs_mode"] == "processed_logprobs"
    assert seen["unsloth"] is None
    assert seen["arguments"]["vllm_importance_sampling_mode"] == "token_truncate"


def test_the_base_is_the_same_bits_after_trl_merged_into_it(by_vllm: Any) -> None:
    seen, _ = by_vllm
    assert seen["adapter_moved"]
    assert seen["base_unchanged"]


def test_unsloth_trains_a_given_adapter_further(wide_folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    write_adapter(wide_folder, given, 0.3)
    asked = settings(
        wide_folder,
        tmp_path,
        model={"adapter": str(given)},
        training={"max_steps": 1, "gradient_accumulation_steps": 1},
    )
    seen, _ = in_own_process(tmp_path, asked, ends_at=6)
    made = seen["unsloth"]["calls"]["get_peft_model"]
    assert (made["r"], made["lora_alpha"]) == ("4", "8")
    assert made["target_modules"] == str(sorted(TARGETS))
    before, after = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (given, RunDir(asked["output_dir"]).adapter)
    )
    assert before.keys() == after.keys()
    gaps = {name: (after[name].float() - before[name]).abs().max() for name in before}
    assert max(gaps.values()) < 0.01  # TRL rounds it to bfloat16, and one update moved it
    assert min(before[name].abs().max() for name in before if "lora_B" in name) > 0.1


def test_what_vllm_sampled_is_scored_by_vllm_and_is_close_to_the_policy(by_vllm: Any) -> None:
    lines = read_jsonl(by_vllm[1].metrics)
    assert [line["scores_from"]["sampling"] for line in lines] == [8.0, 8.0]
    assert all(0 < line["sampler_gap"] < 0.1 for line in lines)  # bfloat16 against itself


def test_unsloth_comes_first_and_with_standby(by_unsloth: Any) -> None:
    seen, folder = by_unsloth
    assert seen["choice"]["backend"] == "unsloth"
    assert seen["unsloth"]["early"] == []
    assert seen["unsloth"]["standby"]
    engine = json.loads(folder.environment.read_text())["engine"]
    assert engine == {
        "engine": "unsloth", "device": "cpu", "dtype": "float32", "in_4bit": True,
        "standby": True, "sampling": "vllm",
        "fast_path": "off, because Unsloth and vLLM use their own kernels",
    }  # fmt: skip


def test_the_values_of_the_first_design_arrive_unchanged(by_unsloth: Any) -> None:
    seen, _ = by_unsloth
    loaded, adapted = (
        seen["unsloth"]["calls"][name] for name in ("from_pretrained", "get_peft_model")
    )
    assert loaded["max_seq_length"] == "2048"
    assert loaded["load_in_4bit"] == loaded["fast_inference"] == "True"
    assert loaded["max_lora_rank"] == "16"
    assert loaded["use_exact_model_name"] == "True"
    assert adapted["r"] == adapted["lora_alpha"] == "16"
    assert adapted["lora_dropout"] == "0.0"
    assert adapted["target_modules"] == str(SEVEN)
    held = seen["arguments"]
    expected = {
        "learning_rate": "5e-06",
        "num_generations": "8",
        "per_device_train_batch_size": "8",  # one prompt, which TRL counts as its completions
        "gradient_accumulation_steps": "4",
        "generation_batch_size": "32",
        "max_completion_length": "512",
        "beta": "0.04",
        "temperature": "1.0",
        "loss_type": "dapo",
        "use_vllm": "True",
        "vllm_mode": "colocate",
        "vllm_enable_sleep_mode": "True",
    }
    assert {name: held[name] for name in expected} == expected


def test_rollouts_and_evaluation_use_the_adapter_and_leave_the_engine_asleep(
    by_unsloth: Any,
) -> None:
    events = by_unsloth[0]["vllm"]
    generations = [i for i, event in enumerate(events) if event.startswith("generate")]
    assert all(events[i + 1].startswith("sleep") for i in generations)
    first_with = events.index("generate with adapter")
    # The model before training, which vLLM is asked for, too, has none; then each call brings it.
    assert {events[i] for i in generations if i < first_with} == {"generate"}
    assert {events[i] for i in generations if i >= first_with} == {"generate with adapter"}
    assert by_unsloth[0]["base_unchanged"]
    assert "hidden states in place of logits" not in by_unsloth[0]["unsloth"]["events"]


def test_nothing_is_left_in_the_working_directory(by_unsloth: Any) -> None:
    assert list((by_unsloth[1].root.parent / "work").iterdir()) == []


def test_without_a_gpu_unsloth_is_not_imported(llama_folder: Path, tmp_path: Path) -> None:
    asked = settings(llama_folder, tmp_path, training={"max_steps": 1})
    script = (
        "import json, sys\nfrom pathlib import Path\n"
        "from remote_trainer.config import load_config\n"
        "from remote_trainer.pipeline.train import run\n"
        f"file = {str(tmp_path / 'config.json')!r}\n"
        "run(load_config(file), Path(file).read_text())\n"
        "print(json.dumps('unsloth' in sys.modules))"
    )
    assert in_own_process(tmp_path, asked, "-c", script)[0] is False
    engine = json.loads((tmp_path / "run" / "environment.json").read_text())["engine"]
    assert (engine["engine"], engine["sampling"]) == ("transformers", "transformers")


def test_an_import_that_came_too_late_is_refused() -> None:
    import transformers  # noqa: F401

    assert "unsloth" not in sys.modules
    with pytest.raises(EngineError, match=r"transformers.* was imported before unsloth"):
        import_unsloth()


def test_standby_that_the_user_switched_off_stays_off(tmp_path: Path) -> None:
    script = (
        "import json, os\nos.environ['UNSLOTH_VLLM_STANDBY'] = '0'\n"
        "from remote_trainer.engines.unsloth_import import import_unsloth\n"
        "print(json.dumps([import_unsloth().STANDBY, os.environ['UNSLOTH_DISABLE_STATISTICS']]))"
    )
    assert in_own_process(tmp_path, {}, "-c", script)[0] == [False, "1"]


def test_nothing_on_the_way_from_the_command_line_comes_before_unsloth(
    llama_folder: Path, tmp_path: Path
) -> None:
    asked = settings(llama_folder, tmp_path)
    script = str(FAKES / "start_with_fakes.py")
    config = str(tmp_path / "config.json")
    seen, _ = in_own_process(tmp_path, asked, script, "train", config)
    assert seen == {"early": [], "standby": True}


def test_a_check_does_without_unsloth(llama_folder: Path, tmp_path: Path) -> None:
    asked = settings(llama_folder, tmp_path)
    script = str(FAKES / "start_with_fakes.py")
    seen, _ = in_own_process(tmp_path, asked, script, "check", str(tmp_path / "config.json"))
    assert seen is False


class UnslothLike(torch.nn.Module):
    """A model with Unsloth's two modes, whose answers hang on its environment."""

    def __init__(self, wide: int = 5) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
        setattr(self.layer, "gradient_checkpointing", "unsloth")  # noqa: B010
        self.head = torch.nn.Linear(3, 7)
        self.wide = wide
        self.device = torch.device("cpu")
        self.modes: list[Any] = []

    def for_inference(self) -> None:
        self.modes.append("inference")
        setattr(self.layer, "gradient_checkpointing", False)  # noqa: B010
        self.eval()

    def for_training(self, use_gradient_checkpointing: Any) -> None:
        self.modes.append(use_gradient_checkpointing)
        self.train()

    def get_output_embeddings(self) -> Any:
        return self.head

    def forward(self, input_ids: Any, logits_to_keep: int, use_cache: bool) -> Any:
        assert os.environ["UNSLOTH_RETURN_LOGITS"] == "1"
        assert os.environ["UNSLOTH_RETURN_HIDDEN_STATES"] == "0"
        return SimpleNamespace(logits=torch.zeros(len(input_ids), logits_to_keep, self.wide))


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("UNSLOTH_RETURN_HIDDEN_STATES", "1")
    monkeypatch.delenv("UNSLOTH_RETURN_LOGITS", raising=False)
    yield
    assert os.environ["UNSLOTH_RETURN_HIDDEN_STATES"] == "1"
    assert "UNSLOTH_RETURN_LOGITS" not in os.environ


def test_scoring_mode_puts_back_what_unsloth_had(clean_environment: None) -> None:
    model = UnslothLike().train()

    def fail_inside() -> None:
        with scoring_mode(model):
            assert not torch.is_grad_enabled()
            assert not model.training
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail_inside()
    assert model.modes == ["inference", "unsloth"]
    assert model.training
    assert torch.is_grad_enabled()


def test_hidden_states_in_place_of_logits_are_noticed(clean_environment: None) -> None:
    backend = UnslothBackend.__new__(UnslothBackend)
    backend.model = UnslothLike(wide=3)
    with pytest.raises(EngineError, match=r"shape \(1, 7\), but returned \(1, 3\)"):
        backend._require_logits((1, 2))
    backend.model = UnslothLike(wide=7)
    backend._require_logits((1, 2))


def test_an_engine_that_gave_up_what_was_asked_is_refused() -> None:
    backend = UnslothBackend.__new__(UnslothBackend)
    backend.model = UnslothLike()
    with pytest.raises(EngineError, match="without vLLM"):
        backend._require_settings(in_4bit=False)
    backend.model.vllm_engine = object()
    backend._require_settings(in_4bit=False)
    with pytest.raises(EngineError, match="16-bit weights, but"):
        backend._require_settings(in_4bit=True)


def test_a_row_that_unsloth_would_cut_is_refused() -> None:
    backend = UnslothBackend.__new__(UnslothBackend)
    backend.max_seq_length = 4
    with pytest.raises(EngineError, match=r"a sequence of 5 tokens .*max_seq_length=4"):
        backend.score([ScoreRequest.of((1, 2, 3), (4, 5, 6))])


def test_padding_behind_rows_gives_the_same_numbers(tiny_folder: Path) -> None:
    backend = TransformersBackend.load(tiny_folder, LoadSettings())
    requests = [
        ScoreRequest.of((5, 6, 7), (8, 9)),
        ScoreRequest.of((5,), (6, 7, 8, 9, 10)),
        ScoreRequest.of((5, 6, 7), (8, 9, 11), measure="self_certainty"),
    ]
    with torch.no_grad():
        left, right = (
            dict(
                answer
                for batch in padded_scores(backend.model, requests, [0, 1, 2], 0, 1000, side)
                for answer in batch
            )
            for side in ("left", "right")
        )
    for i in range(3):
        assert right[i] == pytest.approx(left[i], abs=1e-5)


def test_a_caller_s_model_of_unsloth_is_scored_right_though_its_passes_drop_the_mask(
    tiny_folder: Path,
) -> None:
    requests = [ScoreRequest.of((5, 6, 7), (8, 9)), ScoreRequest.of((11,), (6, 7, 8, 9, 10))]
    plain = TransformersBackend.load(tiny_folder, LoadSettings()).score(requests)
    backend = TransformersBackend.load(tiny_folder, LoadSettings())
    model = backend.model
    forward = model.forward

    def without_mask(attention_mask: Any = None, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(**kwargs)

    model.forward = without_mask
    backend._rows.stop_sharing(False, ValueError("its passes know no packed rows"))
    model.for_inference, model.for_training = model.eval, lambda **_: model.train()
    right = backend.score(requests)
    for i in range(2):
        assert right[i] == pytest.approx(plain[i], abs=1e-5)
    assert "know no packed rows" in backend.describe()["ways"]["packed rows, scoring"]


def test_sampling_is_told_to_vllm_in_its_words() -> None:
    fields = sampling_fields(Sampling(9, 0.7, 0.9, 0, 2, seed=3), eos_ids=(2, 7))
    assert (fields["max_tokens"], fields["min_tokens"]) == (9, 2)
    assert (fields["temperature"], fields["top_p"], fields["top_k"]) == (0.7, 0.9, -1)
    assert (fields["stop_token_ids"], fields["logprobs"]) == ([2, 7], 0)
    assert sampling_fields(Sampling(9, top_k=5), ())["top_k"] == 5


def test_a_completion_s_seed_does_not_depend_on_the_batch() -> None:
    a, b = (1, 2), (3,)
    together = list(seeds([a, b, a], 0))
    assert together == [*seeds([a], 0), *seeds([b], 0), list(seeds([a, a], 0))[1]]
    assert len({*together, *seeds([a, b, a], 1)}) == 6


@pytest.mark.parametrize(
    ("sampling", "plain"),
    [
        (Sampling(4), True),
        (Sampling(4, temperature=0.5), False),
        (Sampling(4, top_p=0.9), False),
        (Sampling(4, top_k=3), False),
        (Sampling(4, min_new_tokens=1), False),
        (Sampling(4, temperature=0), False),
    ],
)
def test_log_probs_of_changed_distributions_are_not_taken(sampling: Sampling, plain: bool) -> None:
    assert draws_plainly(sampling) is plain


def test_a_log_prob_that_vllm_left_out_is_noticed() -> None:
    value = SimpleNamespace(logprob=-0.5)
    whole = SimpleNamespace(
        outputs=[SimpleNamespace(token_ids=[4, 5], logprobs=[{4: value}, {5: value}])]
    )
    assert ids_and_logprobs(whole) == ((4, 5), (-0.5, -0.5))
    whole.outputs[0].logprobs.pop()
    with pytest.raises(EngineError, match="1 of 2"):
        ids_and_logprobs(whole)


def config_of(**changes: Any) -> Any:
    return parse_config(json.dumps(changes), "c")


def test_the_choice_stands_in_the_resolved_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "find_facts", lambda: WHOLE_GPU)
    config = config_of()
    resolved = with_auto_resolved(config, engine_of(config))
    assert (resolved.model.backend, resolved.model.load_in_4bit) == ("unsloth", True)
    assert resolved.generation.engine == "vllm"
    monkeypatch.setattr(choosing, "find_facts", Facts)
    resolved = with_auto_resolved(config, engine_of(config))
    assert (resolved.model.backend, resolved.model.load_in_4bit) == ("transformers", False)


@pytest.mark.parametrize(("facts", "checkpoints"), [(WHOLE_GPU, True), (Facts(), False)])
def test_a_model_is_loaded_for_the_device_that_the_run_was_planned_for(
    facts: Facts, checkpoints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[LoadSettings] = []
    monkeypatch.setattr(choosing, "find_facts", lambda: facts)
    monkeypatch.setattr(TransformersBackend, "load", lambda folder, told: loaded.append(told))
    config = config_of(
        training={"num_generations": 4, "gradient_accumulation_steps": 4},
        generation={"engine": "transformers"},
    )
    choosing.load_trainable(Path(), config, engine_of(config))
    held = trl_settings(config, cuda=facts.cuda)
    assert [each.gradient_checkpointing for each in loaded] == [checkpoints]
    assert held["gradient_checkpointing"] is checkpoints
    planned = batch_plan(config, 12)["trl"]
    assert planned.pop("generation_batch_size") == 16
    assert planned == batch_settings(config)
    assert planned.items() <= held.items()


@pytest.mark.parametrize("backend", ["auto", "unsloth"])
def test_what_unsloth_would_change_or_refuse_is_listed(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(choosing, "find_facts", lambda: WHOLE_GPU)
    config = config_of(
        model={"backend": backend, "dtype": "float32"},
        training={"loss_type": "grpo"},
        generation={"dtype": "float16"},
    )
    with pytest.raises(UserInputError, match="which supports only 16 bits") as refused:
        engine_of(config)
    assert [problem.where for problem in refused.value.problems] == [
        "model.dtype",
        "training.loss_type",
        "generation.dtype",
    ]


def test_a_demand_for_unsloth_lists_all_that_speaks_against_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "find_facts", lambda: WHOLE_GPU)
    model = {"name": "./m", "trust_remote_code": True, "dtype": "float32", "backend": "unsloth"}
    with pytest.raises(UserInputError, match=r"true cannot be combined with .*unsloth") as refused:
        engine_of(config_of(model=model))
    assert [problem.where for problem in refused.value.problems] == [
        "model.trust_remote_code",
        "model.dtype",
    ]


def test_code_of_a_model_leads_to_transformers_where_the_engine_is_left_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "find_facts", lambda: WHOLE_GPU)
    model = {"name": "./m", "trust_remote_code": True, "dtype": "float32"}
    choice = engine_of(config_of(model=model))
    assert choice.backend == "transformers"
    assert choice.reasons == ("transformers trains, as required by model.trust_remote_code",)


@pytest.mark.parametrize(
    ("capability", "dtype", "fits"),
    [
        ((7, 5), "auto", False),
        ((7, 5), "bfloat16", False),
        ((7, 5), "float16", True),
        ((8, 0), "auto", True),
        (None, "auto", True),
    ],
)
def test_unsloth_on_a_device_without_bfloat16_wants_float16(
    monkeypatch: pytest.MonkeyPatch, capability: Any, dtype: str, fits: bool
) -> None:
    facts = replace(WHOLE_GPU, capability=capability)
    monkeypatch.setattr(choosing, "find_facts", lambda: facts)
    config = config_of(model={"dtype": dtype})
    if fits:
        assert engine_of(config).backend == "unsloth"
        return
    with pytest.raises(UserInputError, match=r"capability 7\.5; write float16"):
        engine_of(config)


def test_check_says_what_a_demand_lacks_here() -> None:
    assert engine_problems(config_of()) == []
    (problem, *_) = engine_problems(config_of(model={"backend": "unsloth"}))
    assert problem.where == "model.backend"
    assert "CUDA" in problem.message


def test_people_are_told_what_they_got() -> None:
    choice = EngineChoice("unsloth", "vllm", True)
    engine = {
        "engine": choice.backend, "device": "cuda:0", "dtype": "bfloat16", "in_4bit": True,
        "standby": True, "sampling": choice.generation,
    }  # fmt: skip
    assert describe_engine(engine) == (
        "unsloth trains on cuda:0, 4-bit weights; vllm samples, sleeping during updates"
    )

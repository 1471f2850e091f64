"""Configs: what is accepted, and that every refusal names key, value, line and remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from remote_trainer.config import RewardConfig, RunConfig, dump_config, load_config, parse_config
from remote_trainer.config.yaml_file import dump_yaml, parse_yaml
from remote_trainer.errors import UserInputError
from remote_trainer.rewards import REWARDS
from remote_trainer.rewards.formulas.inverse_loss import InverseLoss
from remote_trainer.rewards.formulas.supervised import Supervised

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_parses(path: Path) -> None:
    assert isinstance(load_config(path), RunConfig)


def test_default_yaml_spells_out_every_default_of_the_schema() -> None:
    written = yaml.safe_load((ROOT / "configs/default.yaml").read_text())
    schema = parse_config("data: {train: data/train_unsupervised.jsonl}", "schema")
    resolved = yaml.safe_load(dump_config(schema))
    del resolved["config_format"]  # of the run folder's file alone
    resolved["output_dir"] = written["output_dir"]
    resolved["reward"] = written["reward"]  # written short; its defaults are the reward's own
    written["training"]["learning_rate"] = float(written["training"]["learning_rate"])
    assert written == resolved


@pytest.mark.parametrize(
    ("snippet", "kind"),
    [
        ("reward:\n  type: inverse_loss\n", InverseLoss),
        ("reward:\n  type: supervised\n  answer_field: answer\n", Supervised),
        ("reward: {}\n", InverseLoss),
        ("", InverseLoss),
    ],
)
def test_reward_snippets_load_on_their_own(snippet: str, kind: type[RewardConfig]) -> None:
    rewards = parse_config(snippet, "snippet").reward
    assert [type(reward) for reward in rewards] == [kind]
    assert rewards[0].answer_field == "answer"


def test_reward_config_by_name() -> None:
    assert RewardConfig() == InverseLoss()
    assert RewardConfig(type="supervised", answer_field="gold").answer_field == "gold"
    with pytest.raises(
        ValueError, match="unknown reward 'nope'; write one of answer_likelihood, chrf, "
    ):
        RewardConfig(type="nope")
    with pytest.raises(ValidationError, match="formla"):
        RewardConfig(type="supervised", formla="x")  # type: ignore[call-arg]


def test_every_reward_is_in_the_catalogue_under_its_type() -> None:
    assert {name: kind.model_fields["type"].default for name, kind in REWARDS.items()} == {
        name: name for name in REWARDS
    }
    assert set(REWARDS.values()) == set(RewardConfig.__subclasses__())


@pytest.mark.parametrize("text", ["5.0e-6", "5e-6", "0.000005", "5E-6"])
def test_scientific_numbers_are_numbers(text: str) -> None:
    config = parse_config(f"training: {{learning_rate: {text}}}", "c")
    assert config.training.learning_rate == 5e-6


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),
        ("08", 8),
        ("0o17", 15),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("-0x1", "-0x1"),
    ],
)
def test_integers_are_those_of_yaml_1_2(text: str, value: int | str) -> None:
    assert parse_yaml(f"a: {text}", "c").value == {"a": value}
    assert parse_yaml(dump_yaml({"a": text}), "c").value == {"a": text}, "a text stays one"


def test_a_leading_zero_does_not_change_a_setting() -> None:
    text, override = "training: {max_steps: 010}", "lora.r=010"
    config = parse_config(text, "c", [override])
    assert (config.training.max_steps, config.lora.r) == (10, 10)


def test_words_that_yaml_1_1_takes_for_booleans_stay_words() -> None:
    config = parse_config("data: {train: off, eval: none, system_prompt: yes}", "c")
    assert config.with_data().train == "off"
    assert config.with_data().system_prompt == "yes"


def test_overrides_win_and_are_typed() -> None:
    config = parse_config(
        "training: {max_steps: 5}\nreward: [{type: supervised}]",
        "c",
        ["training.max_steps=7", "training.learning_rate=1e-3", "reward.0.weight=2", "lora.r=4"],
    )
    assert (config.training.max_steps, config.training.learning_rate) == (7, 1e-3)
    assert (config.reward[0].weight, config.lora.r) == (2.0, 4)


@pytest.mark.parametrize(
    ("text", "override", "key", "value"),
    [
        ("training: {max_steps: 5}", "training.max_steps=null", "training.max_steps", None),
        (
            "data: {train: x, system_prompt: y}",
            "data.system_prompt=null",
            "data.system_prompt",
            None,
        ),
        ("evaluation: {rows: 3}", "evaluation.rows=null", "evaluation.rows", None),
        ("model: {adapter: x}", "model.adapter=~", "model.adapter", None),
        ("training: {seed: 3}", "training.seed=null", "training.seed", 0),
        ("lora: {r: 3}", "lora=null", "lora.r", 16),
        ("output_dir: x", "output_dir=null", "output_dir", "runs/run"),
        ("reward: {weight: 3}", "reward.weight=null", "reward.0.weight", 1.0),
        ("reward: [{weight: 3}]", "reward.0.weight=null", "reward.0.weight", 1.0),
        ("training:", "training.seed=4", "training.seed", 4),
        ("training:\nlora:\n", "lora.r=4", "training.seed", 0),
        ("", "model.revision=12e4567", "model.revision", "12e4567"),
        ("", "output_dir=2026-11-28", "output_dir", "2026-11-28"),
        ("", "output_dir=007", "output_dir", "007"),
        ("", "output_dir=a=b", "output_dir", "a=b"),
        ("data: {train: x}", "data.system_prompt=x = 1", "data.system_prompt", "x = 1"),
    ],
)
def test_an_override_says_what_a_shell_can(text: str, override: str, key: str, value: Any) -> None:
    more = ["training.num_train_epochs=1"] if "max_steps" in key else []
    found: Any = parse_config(text, "c", [override, *more]).model_dump()
    for part in key.split("."):
        found = found[int(part) if part.isdigit() else part]
    assert found == value


def test_null_for_what_must_be_written_is_missing_and_a_wrong_key_stays_wrong() -> None:
    for override, message in (
        ("data.train=null", "--set data.train: data.train: this key is required"),
        ("training.sed=null", "training.sed: no such key; did you mean 'seed'?"),
        ("training.max_steps=null", "max_steps is null and num_train_epochs is not set"),
    ):
        with pytest.raises(UserInputError) as refused:
            parse_config("data: {train: x}", "c", [override])
        assert message in str(refused.value)


def test_an_anchor_stands_for_what_it_names() -> None:
    config = parse_config("training: {seed: &s 3}\nlora: {r: *s}\nreward: {weight: *s}", "c")
    assert (config.training.seed, config.lora.r, config.reward[0].weight) == (3, 3, 3.0)


def test_dates_are_texts_and_a_section_may_be_empty() -> None:
    config = parse_config("output_dir: 2026-11-28\ntraining:\n  # seed: 3\nmodel:\n", "c")
    assert (config.output_dir, config.training.seed) == ("2026-11-28", 0)
    assert parse_config(dump_config(config), "again") == config


def test_half_a_character_is_refused_with_its_line() -> None:
    with pytest.raises(UserInputError, match=r"c:2: data\.system_prompt: contains half a surro"):
        parse_config('data:\n  {train: x, system_prompt: "\\ud83d"}', "c")


LOOKS_LIKE_MORE = ["1e5", "12e4567", "+1e-5", ".5e3", "007", "1_000", "1:30", "2026-11-28", ".inf"]
LOOKS_LIKE_MORE += ["off", "true", "null", "=", "- a", "a: b", " a", "a\n\n b\n", "\x07", "ä 😀"]


@pytest.mark.parametrize("text", LOOKS_LIKE_MORE)
def test_what_a_text_looks_like_does_not_change_it_on_the_way_through_a_file(text: str) -> None:
    config = RunConfig.model_validate({"data": {"train": "x", "system_prompt": text}})
    assert parse_config(dump_config(config), "again") == config


def test_the_config_of_the_original_design_has_its_numbers() -> None:
    config = load_config(ROOT / "configs/original_design.yaml")
    assert [(r.type, r.answer_field) for r in config.reward] == [("supervised", "answer")]
    lora = config.lora
    assert (lora.r, lora.alpha, lora.dropout, len(lora.target_modules)) == (16, 16, 0.0, 7)
    training = config.training
    assert (training.learning_rate, training.beta, training.num_generations) == (5e-6, 0.04, 8)
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (1, 4)
    assert (training.max_prompt_length, training.max_completion_length) == (512, 512)
    assert (config.model.max_seq_length, config.model.load_in_4bit) == (2048, "auto")


def test_config_is_frozen_and_survives_a_round_trip() -> None:
    config = load_config(ROOT / "configs/supervised.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        config.training.seed = 3  # type: ignore[misc]
    assert parse_config(dump_config(config), "again") == config


def test_epochs_replace_the_default_number_of_steps() -> None:
    training = parse_config("training: {num_train_epochs: 2}", "c").training
    assert (training.max_steps, training.num_train_epochs) == (None, 2.0)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
"""Ten lines that stand for 9 to the power of 10 values."""
MERGES = "m0: &m0 {a: 1}\n" + "".join(
    f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 10)
)

WRONG: list[tuple[str, str]] = [
    (
        "training: {learning_rate: fast}",
        "c:1: training.learning_rate: found 'fast'; write a number",
    ),
    ("training: {lerning_rate: 1}", "no such key; did you mean 'learning_rate'?"),
    ("model:\n  nam: x", "c:2: model.nam: no such key; did you mean 'name'?"),
    ("outputdir: x", "outputdir: no such key; did you mean 'output_dir'?"),
    ("zzz: 1", "zzz: no such key; allowed: "),
    ("seed: 1", "seed: no such key; did you mean 'training.seed'?"),
    ("training: {temperature: 1}", "no such key; did you mean 'generation.temperature'?"),
    ("training: {num_generations: 1}", "num_generations: found 1; write a number >= 2"),
    ("training: {beta: -0.1}", "beta: found -0.1; write a number >= 0"),
    ("training: {max_steps: 1.5}", "max_steps: found 1.5; write an integer"),
    ("training: {max_steps: 3, num_train_epochs: 2}", "max_steps and num_train_epochs both set"),
    ("training: {max_steps: null}", "write one of them"),
    ("training: {seed: 1, seed: 2}", "training.seed: duplicate key, first on line 1; keep one"),
    ("training: {num_iterations: 3}", "save_steps=20 is not a multiple of num_iterations=3"),
    ("training: {gradient_checkpointing: maybe}", "write 'auto', true or false"),
    ("training: {loss_type: x}", "loss_type: found 'x'; write 'grpo', 'dapo', 'bnpo' or 'dr_grpo'"),
    ("training: {learning_rate: .inf}", "learning_rate: found inf; write a number"),
    ("reward: {type: supervized}", "unknown reward 'supervized'; did you mean 'supervised'?"),
    ("reward: {formla: original}", "reward.0.formla: no such key; did you mean 'formula'?"),
    (
        "reward:\n- {type: supervised, formula: coverage}",
        "c:2: reward.0.formula: found 'coverage'; write 'coverage_prob', 'coverage_ce'",
    ),
    (
        "reward: {type: supervised, formula: coverage_information, alignment: positional}",
        "coverage_information has no positional form; write alignment: after_completion",
    ),
    ("reward: []", "reward: found []; write at least one entry"),
    ("reward: 7", "unknown reward 7; allowed: answer_likelihood, chrf, exact_match"),
    ("generation: 5", "generation: found 5; write a section"),
    ("generation: {top_p: 0}", "top_p: found 0; write a number > 0"),
    ("generation: {temperature: 0}", "temperature: found 0; write a number > 0"),
    ("model: {dtype: int8}", "dtype: found 'int8'; write 'auto', 'float32'"),
    (
        "model: {trust_remote_code: true}",
        "pin the version that you reviewed: write revision: <40-digit commit>",
    ),
    ("lora: {target_modules: [lm_head]}", "lm_head cannot have an adapter"),
    ("lora: {target_modules: []}", "target_modules: found []; write at least one entry"),
    ("data: {eval: x}", "data.train: this key is required"),
    ("data: {train: 3}", "data.train: found 3; write a string"),
    ("model: {max_seq_length: 100}", "max_completion_length = 576 tokens, over model.max_seq_len"),
    (
        "export: {formats: [ggml]}",
        "export.formats.0: found 'ggml'; write 'lora', 'merged_16bit', 'merged_4bit' or 'gguf'",
    ),
    ("- a\n- b", "a config must be a list of `key: value` lines"),
    ("a: [1", "not valid YAML"),
    (
        "lora:\n  r: " + "[" * 9999,
        "c:2: not valid YAML: nested more than 50 levels deep",
    ),
    ("lora:\n  r: " + "{a: " * 99 + "}" * 99, "c:2: not valid YAML: nested more than 50 levels"),
    (
        "a: 1\nlora: &x\n  r: *x",
        "c:3: not valid YAML: the alias *x refers to a node that contains it",
    ),
    ("lora:\n  r: !!int x", "c:2: not valid YAML: not a value of the type int"),
    ("lora:\n  r: !!bool x", "c:2: not valid YAML: not a value of the type bool"),
    ("lora:\n  r: !!float ''", "c:2: not valid YAML: not a value of the type float"),
    ("lora:\n  r: !!timestamp 2020-99-99", "c:2: not valid YAML: could not determine a constr"),
    ("lora:\n  r: !!python/name:os.system", "c:2: not valid YAML: could not determine a constr"),
    ("seed: " + "9" * 5000, "c:1: not valid YAML: an integer with more than 30 digits"),
    ("seed: 0x" + "f" * 5000, "c:1: not valid YAML: an integer with more than 30 digits"),
    (LAUGHS, "c:5: not valid YAML: more than 10000 values"),
    (MERGES, "c:5: not valid YAML: more than 10000 values"),
    ("training: {max_steps: 1:30}", "max_steps: found '1:30'; write an integer"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[text[:45] for text, _ in WRONG])
def test_wrong_configs_are_explained(text: str, message: str) -> None:
    with pytest.raises(UserInputError) as caught:
        parse_config(text, "c")
    assert message in str(caught.value)
    assert all(str(problem).startswith("c") for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.max_step=4", "--set training.max_step: training.max_step: no such key; did you"),
        ("training.max_steps", "write --set key=value"),
        ("lora.r=big", "--set lora.r: lora.r: found 'big'; write an integer"),
        ("reward.9.type=x", "is not a valid key: a part of it is not a section"),
        ("lora.r=[1", "'[1' is not valid YAML"),
        ("reward.\u00b2=1", "reward.\u00b2 is not a valid key"),
        (f"reward.{'9' * 5000}=1", "is not a valid key: a part of it is not a section"),
        ("lora.r=" + "[" * 999 + "]" * 999, "]' is not valid YAML"),
    ],
)
def test_wrong_overrides_are_explained(override: str, message: str) -> None:
    with pytest.raises(UserInputError) as caught:
        parse_config("reward: [{type: supervised}]", "c", [override])
    assert message in str(caught.value)


def test_all_problems_are_listed_at_once() -> None:
    text = "training:\n  learning_rate: x\n  seed: -1\nlora: {r: 0}\nmodle: {}\n"
    with pytest.raises(UserInputError, match="did you mean 'model'") as caught:
        parse_config(text, "c", ["data.train"])
    places = sorted(problem.where for problem in caught.value.problems)
    assert places == ["--set data.train", "c:2", "c:3", "c:4", "c:5"]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"\xff\xfe", "cannot be read as UTF-8")]
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserInputError, match=message):
        load_config(path)


def _leaves(model: Any, prefix: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        inner = next(
            (
                kind
                for kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
                if hasattr(kind, "model_fields")
            ),
            None,
        )
        names += _leaves(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return names


@pytest.mark.parametrize("key", [k for k in _leaves(RunConfig) if not k.startswith("reward")])
def test_every_misspelled_key_is_refused_with_the_right_one(key: str) -> None:
    *sections, last = key.split(".")
    text: Any = {f"{last}x": 1}
    for section in reversed(sections):
        text = {section: text}
    with pytest.raises(UserInputError) as caught:
        parse_config(yaml.safe_dump(text), "c")
    assert f"did you mean '{last}'?" in str(caught.value)


def test_a_key_of_another_reward_is_no_misspelling() -> None:
    with pytest.raises(UserInputError) as caught:
        parse_config("reward: {type: supervised, truncated: floor}", "c")
    assert str(caught.value).startswith(
        "c:1: reward.0.truncated: supervised has no such key ('truncated' belongs to "
        "inverse_loss); its keys: alignment, "
    )
    with pytest.raises(UserInputError) as caught:
        parse_config("reward: [{type: token_f1}, {type: exact_match, patern: x}]", "c")
    assert str(caught.value) == (
        "c:1: reward.1.patern: exact_match has no such key ('pattern' belongs to regex); its "
        "keys: answer_field, gate, type, weight"
    )


def test_a_device_is_read_no_further_than_a_config_can_be() -> None:
    with pytest.raises(UserInputError, match=r"/dev/zero: has more than 1048576 bytes"):
        load_config("/dev/zero")

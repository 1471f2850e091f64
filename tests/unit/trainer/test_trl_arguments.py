"""TRL's config object holds what we set, also where another class has been put in its place."""

import json
import math
import re
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trl import GRPOConfig

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.errors import EngineError, NonFiniteLossError
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer import trl_arguments as module
from remote_trainer.trainer.finite_gradients import FiniteGradients
from remote_trainer.trainer.trl_arguments import (
    require_settings,
    stock_class,
    trl_arguments,
    with_newer_names,
)
from remote_trainer.trainer.trl_settings import (
    FIXED,
    NEWER_NAMES,
    OTHER_KEY,
    SAME_NAME,
    check_trl_settings,
    trl_settings,
    why_refused,
)

SETTINGS: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "loss_type": "dapo", "learning_rate": 3e-6, "top_k": 0,
    "gradient_checkpointing": False, "max_steps": 7, "report_to": "none",
}  # fmt: skip


@dataclass
class Rewritten(GRPOConfig):  # type: ignore[misc]
    """What Unsloth 2026.10 does to a config: other defaults, changed values, a field of its own."""

    chunks: int = -1

    def __init__(self, output_dir: str, seed: int = 3407, **given: Any) -> None:
        super().__init__(output_dir=output_dir, seed=seed, **given)
        held: Any = self
        held.chunks = -1
        held.top_k = -1
        if held.loss_type == "dapo" and held.epsilon_high is None:
            held.epsilon_high = 0.28
        held.learning_rate *= 10
        held.gradient_checkpointing_kwargs = {"use_reentrant": True}


Rewritten.__module__ = GRPOConfig.__module__


@pytest.fixture
def rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRPOConfig", Rewritten)


def test_trl_s_own_class_is_found_behind_one_that_claims_its_module() -> None:
    assert stock_class(Rewritten) is GRPOConfig
    assert stock_class(GRPOConfig) is GRPOConfig


@pytest.mark.usefixtures("rewritten")
def test_a_rewritten_config_holds_what_trl_s_own_would(tmp_path: Path) -> None:
    held = trl_arguments(SETTINGS, RunDir(tmp_path), rewritten=True)
    stock = GRPOConfig(output_dir=str(tmp_path), **with_newer_names(GRPOConfig, SETTINGS))
    assert type(held) is Rewritten
    differ = {
        field.name
        for field in fields(GRPOConfig)
        if getattr(held, field.name) != getattr(stock, field.name)
    }
    # -1 and 0 are both all ids; the other is the engine's own affair.
    assert differ == {"top_k", "gradient_checkpointing_kwargs"}
    assert (held.epsilon_high, held.seed, held.learning_rate) == (None, 42, 3e-6)
    require_settings(held, SETTINGS)


@pytest.mark.usefixtures("rewritten")
def test_what_the_engine_changed_is_named() -> None:
    changed = Rewritten("x", **with_newer_names(GRPOConfig, SETTINGS))
    message = r"learning_rate is 3e-05 and was set to 3e-06"
    with pytest.raises(EngineError, match=message):
        require_settings(changed, SETTINGS)


def test_gradients_of_a_loss_that_is_scaled_by_trial_may_overflow() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.tensor([float("inf")])
    model = SimpleNamespace(parameters=lambda: [weight])
    state = SimpleNamespace(global_step=0)
    FiniteGradients().on_pre_optimizer_step(SimpleNamespace(fp16=True), state, None, model)
    with pytest.raises(NonFiniteLossError, match="update 1: a gradient is not finite"):
        FiniteGradients().on_pre_optimizer_step(SimpleNamespace(fp16=False), state, None, model)


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the values that the program waits for."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("worst", [0.0, 3e38, float("inf"), float("nan")])
@pytest.mark.parametrize("place", [0, 3])
def test_all_gradients_are_checked_with_one_value_read(worst: float, place: int) -> None:
    weights = [torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(5)]
    for weight in weights[:4]:  # the last one has no gradient
        weight.grad = torch.full((2, 3), 3e38)
    changed = weights[place].grad
    assert changed is not None
    changed[1, 2] = worst
    model, args = SimpleNamespace(parameters=lambda: weights), SimpleNamespace(fp16=False)
    state = SimpleNamespace(global_step=0)
    with HostReads() as reads:  # type: ignore[no-untyped-call]
        if math.isfinite(worst):
            FiniteGradients().on_pre_optimizer_step(args, state, None, model)
        else:
            with pytest.raises(NonFiniteLossError, match="update 1: a gradient is not finite"):
                FiniteGradients().on_pre_optimizer_step(args, state, None, model)
    assert reads.count == 1
    nothing = SimpleNamespace(parameters=lambda: weights[4:])
    FiniteGradients().on_pre_optimizer_step(args, state, None, nothing)


def test_settings_stand_under_the_newer_of_two_names_where_there_is_one() -> None:
    @dataclass
    class Newer:
        gradient_checkpointing: bool = True
        activation_checkpointing: bool | None = None

    @dataclass
    class Older:
        gradient_checkpointing: bool = True

    asked = {"gradient_checkpointing": False, "seed": 1}
    assert with_newer_names(Newer, asked) == {"activation_checkpointing": False, "seed": 1}
    assert with_newer_names(Older, asked) == asked


@pytest.mark.parametrize("checkpointing", [False, True])
def test_checkpointing_reaches_trl_without_a_warning(tmp_path: Path, checkpointing: bool) -> None:
    settings = {**SETTINGS, "gradient_checkpointing": checkpointing}
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        held = trl_arguments(settings, RunDir(tmp_path), rewritten=False)
    assert held.gradient_checkpointing is checkpointing
    require_settings(held, settings)


REFUSED = sorted(
    {*trl_settings(RunConfig(), cuda=False), *NEWER_NAMES.values(), "use_vllm"}
    - {"activation_checkpointing_kwargs"}
)


def has_key(path: str) -> bool:
    """Whether a config has this dotted key."""
    section, _, name = path.partition(".")
    field = RunConfig.model_fields.get(section)
    return field is not None and name in getattr(field.annotation, "model_fields", {})


@pytest.mark.parametrize("name", REFUSED)
def test_every_refused_field_names_its_key_or_the_reason(name: str) -> None:
    training = {"trl": {name: None}}
    config = parse_config(json.dumps({"data": {"train": "-"}, "training": training}), "c")
    (problem,) = check_trl_settings(config)
    keys = re.findall(r"\b[a-z]+\.[a-z_]+\b", problem.message.replace("metrics.jsonl", ""))
    assert all(map(has_key, keys)), keys
    assert keys or problem.message.startswith("is set by the program: ")
    assert set(SAME_NAME) | set(OTHER_KEY) | set(FIXED) <= set(REFUSED)


def test_a_key_of_another_name_is_told_with_it() -> None:
    assert why_refused("temperature") == "write generation.temperature"
    assert why_refused("report_to") == (
        "write tracking.report_to; that tracker has a process of its own"
    )
    assert why_refused("epsilon_high") is None
    assert why_refused("vllm_enable_sleep_mode") is None


def test_the_newer_name_has_a_key_of_its_own_too() -> None:
    training = {"trl": {"activation_checkpointing": True}}
    config = parse_config(json.dumps({"data": {"train": "-"}, "training": training}), "c")
    (problem,) = check_trl_settings(config)
    assert str(problem).startswith("training.trl.activation_checkpointing: has a key of its own")

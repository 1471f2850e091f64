"""Our trainer on TRL as the real Unsloth rewrites it, on a CPU: it is made, holds our settings, and
learns what it learns on stock TRL from the same completions.

What Unsloth does to a model (its kernels, 4 bits, vLLM) is not part of this: it needs a GPU.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hooks import INHERITED, Family, family, hook_problems, ours
from train_rewritten import config_of
from vendor import ROOT, SITE, Vendor

from remote_trainer.trainer.trl_settings import trl_settings

SCRIPT = Path(__file__).with_name("train_rewritten.py")
GENERATED = "unsloth_compiled_cache/UnslothGRPOTrainer.py"
CPU_ONLY = {"fp16", "fp16_full_eval"}
"""Unsloth switches these on where a device has no bfloat16, as here; autocast is off on a CPU."""
NAMED = {
    "optim": "adamw_torch", "lr_scheduler_type": "constant", "save_strategy": "steps",
    "report_to": "[]",
}  # fmt: skip
"""Settings that TRL holds as names of its own, or as a list."""


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    paths = [str(SITE), str(ROOT / "src"), str(ROOT / "tests")]
    if arguments[0] == "stock":
        paths.pop(0)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        # Its import stops without a GPU otherwise.
        "UNSLOTH_ALLOW_CPU": "1",
        "UNSLOTH_COMPILE_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
        "REMOTE_TRAINER_CACHE": str(folder / "cache"),
    }
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def report(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    """(what the run told, its folder, its error output)"""
    folder = tmp_path_factory.mktemp("rewritten")
    done = run(folder, "rewritten")
    return report(done), folder, done.stderr


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return report(run(tmp_path_factory.mktemp("stock"), "stock"))


@pytest.fixture(scope="module")
def generated(rewritten: Any) -> Family:
    """The classes that Unsloth wrote, and those below them."""
    text = (rewritten[1] / GENERATED).read_text(encoding="utf-8")
    vendor = Vendor({GENERATED: text})
    own = [(GENERATED, "UnslothGRPOTrainer"), (GENERATED, "_UnslothGRPOTrainer")]
    return family(vendor, [*own, *INHERITED])


def test_our_trainer_stands_on_unsloth_s(rewritten: Any, stock: Any) -> None:
    seen = rewritten[0]
    for update in seen["updates"]:
        assert update["classes"][:7] == [
            "remote_trainer.trainer.grpo.RewardTrainer",
            "remote_trainer.trainer.checkpoint_hooks.CheckpointHooks",
            "remote_trainer.trainer.loss_mask.LossMaskTrainer",
            "remote_trainer.trainer.rollout.RolloutTrainer",
            "remote_trainer.trainer.packed_update.SharedPrefixTrainer",
            "UnslothGRPOTrainer.UnslothGRPOTrainer",
            "UnslothGRPOTrainer._UnslothGRPOTrainer",
        ]
    assert "trl.trainer.grpo_trainer.GRPOTrainer" in stock["updates"][0]["classes"]
    assert (seen["unsloth"], stock["unsloth"]) == (True, False)


def test_nothing_was_imported_before_unsloth(rewritten: Any) -> None:
    assert "Unsloth should be imported before" not in rewritten[2]


def test_the_order_of_imports_swapped_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "rewritten", "early")
    assert done.returncode != 0
    assert "transformers was imported before unsloth" in done.stderr


def test_trl_s_own_config_is_found_behind_unsloth_s(rewritten: Any, stock: Any) -> None:
    seen = rewritten[0]
    claims = [c for c in seen["config_classes"] if c == "trl.trainer.grpo_config.GRPOConfig"]
    assert len(claims) == 2
    assert not seen["stock_is_first"]
    assert seen["stock_fields"] == stock["fields"]
    assert "unsloth_num_chunks" in set(seen["fields"]) - set(stock["fields"])


def test_every_setting_of_ours_is_what_the_trainer_holds(rewritten: Any) -> None:
    held = rewritten[0]["updates"][0]["arguments"]
    settings = trl_settings(config_of(0.0), cuda=False)
    assert {name: held[name].split(".")[-1].lower() for name in NAMED} == NAMED
    as_written = {name: str(value) for name, value in settings.items() if name not in NAMED}
    assert {name: held[name] for name in as_written} == as_written
    assert as_written["learning_rate"] == "0.01"
    assert as_written["per_device_train_batch_size"] == "4"


def test_every_other_field_is_what_trl_s_own_would_be(rewritten: Any, stock: Any) -> None:
    held, meant = (each["updates"][0]["arguments"] for each in (rewritten[0], stock))
    differ = {name for name in meant if held[name] != meant[name]}
    assert differ - {"output_dir"} - CPU_ONLY == set()
    assert held["epsilon_high"] == "None"
    assert rewritten[0]["updates"][0]["clip"] == stock["updates"][0]["clip"] == [0.2, 0.2]


@pytest.mark.parametrize("update", [0, 1], ids=["all groups", "one group filtered"])
def test_both_learn_the_same_from_the_same_completions(
    rewritten: Any, stock: Any, update: int
) -> None:
    theirs, plain = (each["updates"][update] for each in (rewritten[0], stock))
    assert theirs["line"]["filtered_share"] == plain["line"]["filtered_share"] == 0.5 * update
    assert abs(plain["line"]["loss"]) > 0.05
    assert theirs["line"]["loss"] == pytest.approx(plain["line"]["loss"], abs=2e-5)
    assert theirs["line"]["grad_norm"] == pytest.approx(plain["line"]["grad_norm"], rel=2e-3)
    # The first update of Adam moves each weight by the learning rate, one way or the other; only
    # where a gradient is next to nothing can rounding turn it.
    moved = [
        abs(a - b) < 1e-3
        for name, weights in plain["adapter"].items()
        for a, b in zip(theirs["adapter"][name], weights, strict=True)
    ]
    assert sum(moved) / len(moved) > 0.98


def test_rollouts_bring_the_adapter_as_it_is_and_leave_the_engine_asleep(tmp_path: Path) -> None:
    seen = report(run(tmp_path, "rewritten", "vllm"))
    # Made asleep by TRL; woken by what Unsloth puts in place of sending weights.
    update = ["sleep 1", "wake all", "wake kv_cache", "generate with adapter", "sleep 1"]
    assert seen["engine"] == [*update, *update]
    for each in seen["updates"]:
        assert each["line"]["scores_from"]["sampling"] == 8.0
        assert each["arguments"]["use_vllm"] == "True"
        assert each["arguments"]["vllm_importance_sampling_mode"] == "token_truncate"


def test_our_trainer_fits_on_the_classes_that_unsloth_wrote(generated: Family) -> None:
    assert hook_problems(ours(), generated) == []


def test_a_hook_that_unsloth_renamed_is_noticed(rewritten: Any) -> None:
    text = (rewritten[1] / GENERATED).read_text(encoding="utf-8")
    vendor = Vendor({GENERATED: text.replace("_generate_single_turn", "_generate_turn")})
    own = [(GENERATED, "UnslothGRPOTrainer"), (GENERATED, "_UnslothGRPOTrainer")]
    found = hook_problems(ours(), family(vendor, [*own, *INHERITED]))
    assert "there is no _generate_single_turn below" in found


def test_batches_have_our_keys(generated: Family) -> None:
    assert ours().batch_keys() | {"prompt_mask"} <= generated.strings()

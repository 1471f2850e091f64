"""The variables that we set are read by the packages, and Unsloth looks at the same imports."""

import ast
import re
from collections.abc import Mapping
from functools import cache

import pytest
from calls import our_source
from vendor import Vendor, vendor_files

from remote_trainer.engines.unsloth_import import ENVIRONMENT, PATCHED
from remote_trainer.models.modes import UNSLOTH_LOGITS
from remote_trainer.telemetry import SWITCHES

REAL = Vendor()
STANDBY = "UNSLOTH_VLLM_STANDBY"
ZOO, LLAMA = "unsloth_zoo/vllm_utils.py", "unsloth/models/llama.py"


def reads(source: str, name: str) -> bool:
    """Whether a text asks the environment for a variable, and not only speaks of it."""
    quoted = re.escape(f"'{name}'")
    asks = rf"(os\.getenv\(|os\.environ\.get\(|os\.environ\[){quoted}|{quoted} in os\.environ"
    return re.search(asks, source.replace('"', "'")) is not None


def standby_problems(vendor: Vendor, environment: Mapping[str, str]) -> list[str]:
    """What would leave vLLM awake while the model learns."""
    found = []
    if environment.get(STANDBY, "0") == "0":
        found.append("we do not switch standby on")
    if not reads(vendor.source(ZOO, "load_vllm"), STANDBY):
        found.append("load_vllm does not read the variable")
    if "enable_sleep_mode=unsloth_vllm_standby" not in vendor.source(ZOO, "load_vllm"):
        found.append("the engine's sleep does not hang on it")
    if not reads(vendor.text("unsloth_zoo/__init__.py"), STANDBY):
        found.append("the import does not choose the allocator by it")
    return found


def test_standby_is_switched_on_by_a_variable_that_unsloth_reads_at_import_and_at_load() -> None:
    assert standby_problems(REAL, ENVIRONMENT) == []


@pytest.mark.parametrize(
    ("file", "new", "expected"),
    [
        (ZOO, "UNSLOTH_VLLM_SLEEP", "load_vllm does not read the variable"),
        ("unsloth_zoo/__init__.py", "UNSLOTH_SLEEP", "the import does not choose"),
    ],
)
def test_a_standby_variable_that_was_renamed_there_is_noticed(
    file: str, new: str, expected: str
) -> None:
    found = standby_problems(REAL.changed(file, STANDBY, new), ENVIRONMENT)
    assert any(expected in problem for problem in found)


def test_a_standby_variable_that_was_dropped_here_is_noticed() -> None:
    ours = our_source("engines/unsloth_import.py")
    dropped = {name: value for name, value in ENVIRONMENT.items() if name != STANDBY}
    assert standby_problems(REAL, dropped) == ["we do not switch standby on"]
    assert standby_problems(REAL, {**ENVIRONMENT, STANDBY: "0"}) == ["we do not switch standby on"]
    # And what is set there is what is tested here.
    assert f'"{STANDBY}": "1"' in ours


COUNTED = "UNSLOTH_DISABLE_STATISTICS"


@pytest.mark.parametrize("name", sorted({*ENVIRONMENT, *UNSLOTH_LOGITS, COUNTED}))
def test_every_variable_that_we_set_is_read_somewhere(name: str) -> None:
    assert name in read_in_unsloth()


@cache
def read_in_unsloth() -> frozenset[str]:
    """Which of our variables its files ask for."""
    names = {*ENVIRONMENT, *UNSLOTH_LOGITS, COUNTED}
    texts = [REAL.text(file) for file in vendor_files("unsloth", "unsloth_zoo")]
    return frozenset(name for name in names if any(reads(text, name) for text in texts))


@pytest.mark.parametrize("name", ["VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK", "DO_NOT_TRACK"])
def test_vllm_sends_no_usage_data_by_the_variables_that_we_set(name: str) -> None:
    assert name in SWITCHES
    assert reads(REAL.text("vllm/envs.py"), name)


def test_unsloths_users_are_not_counted() -> None:
    assert SWITCHES[COUNTED] == "1"


def test_the_forward_pass_asks_for_logits_at_every_call() -> None:
    body = REAL.source(LLAMA, "_CausalLM_fast_forward")
    for name in UNSLOTH_LOGITS:
        assert reads(body, name)
    assert "logits=hidden_states" in body  # what a 1 there would hand out


def test_a_mention_is_not_a_read() -> None:
    assert not reads("print(\"set os.environ['X'] = '1'\")\n".replace("['X']", " X"), "X")
    assert reads('os.getenv("X", "0")', "X")
    assert reads("'X' in os.environ", "X")


def test_unsloth_warns_about_the_packages_that_we_refuse() -> None:
    (named,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(REAL.text("unsloth/_gpu_init.py")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "critical_modules"
    ]
    assert set(named) == set(PATCHED)

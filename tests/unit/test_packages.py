"""Declared ranges against what is installed, on environments made up for the purpose."""

import tomllib
from pathlib import Path

from remote_trainer.packages import (
    Conflict,
    Distribution,
    Package,
    allows,
    conflicts,
    install_extra,
    our_packages,
    pip_install,
    reach_of,
    read_installed,
)

ROOT = Path(__file__).parents[2]
OURS = Distribution(
    "0.1.0",
    requires=(
        "pyyaml>=6.0",
        "TRL!=1.15.*,<1.16,>=1.14.2; extra == 'train'",
        "pyyaml>=6.0; extra == 'train'",
        "remote-trainer[train]; extra == 'unsloth'",
        "unsloth>=2026.10.7; sys_platform != 'nowhere' and extra == 'unsloth'",
        "triton-windows; sys_platform == 'nowhere' and extra == 'unsloth'",
        "ray[default,train]>=2.60; extra == 'ray'",
    ),
    extras=("train", "unsloth", "ray"),
)


def test_what_each_extra_asks_for_here() -> None:
    installed = {"remote-trainer": OURS, "pyyaml": Distribution("6.0.3")}
    found = our_packages({**installed, "trl": Distribution("1.15.0")})
    trl = Package("trl", "train", ">=1.14.2,!=1.15.*,<1.16", "1.15.0")
    assert [each for each in found if each.extra == "train"] == [
        trl,
        Package("pyyaml", "train", ">=6.0", "6.0.3"),
    ]
    assert not trl.fits
    assert [(each.name, each.extra, each.fits) for each in found if each.extra != "train"] == [
        ("pyyaml", "base", True),
        ("trl", "unsloth", False),
        ("pyyaml", "unsloth", True),
        ("unsloth", "unsloth", False),
        ("ray", "ray", False),
    ]


def test_a_conflict_names_who_wants_what_and_a_version_for_all() -> None:
    installed = {
        "remote-trainer": OURS,
        "pyyaml": Distribution("6.0.3"),
        "trl": Distribution("1.16.0", requires=("accelerate>=1.4",)),
        "unsloth": Distribution("2026.10.7", requires=("trl<=1.15.0,!=0.19.0",)),
        "stranger": Distribution("1", requires=("pyyaml<5",)),  # nobody of ours needs it
    }
    assert conflicts(installed) == [
        Conflict(
            "accelerate",
            None,
            ("trl 1.16.0 wants accelerate>=1.4",),
            ("trl",),
            "python -m pip install 'accelerate>=1.4'",
        ),
        Conflict(
            "trl",
            "1.16.0",
            (
                "unsloth 2026.10.7 wants trl!=0.19.0,<=1.15.0",
                "remote-trainer 0.1.0 wants trl>=1.14.2,!=1.15.*,<1.16",
            ),
            ("unsloth", "remote-trainer"),
            "python -m pip install 'trl>=1.14.2,!=0.19.0,!=1.15.*,<=1.15.0,<1.16'",
        ),
    ]


def test_requirements_of_extras_count_only_where_the_extra_was_asked_for() -> None:
    ray = Distribution(
        "2.60.0", requires=("aiohttp>=3; extra == 'default'", "gymnasium; extra == 'rllib'")
    )
    installed = {"remote-trainer": OURS, "pyyaml": Distribution("6"), "ray": ray}
    assert [each.name for each in conflicts(installed)] == ["aiohttp"]
    assert reach_of(installed, ["ray"]) == {"pyyaml": set(), "ray": {"default", "train"}}
    assert reach_of(installed, ["base"]) == {"pyyaml": set()}


def test_local_builds_and_prereleases_are_in_a_range() -> None:
    assert allows(">=2.13,<2.15", "2.13.0+cpu")
    assert allows(">=2.13", "2.14.0rc1")
    assert allows("", "1")
    assert not allows("!=1.15.*", "1.15.2")


def test_commands() -> None:
    assert pip_install("trl", "<2,>=1", "!=1.5") == "python -m pip install 'trl>=1,!=1.5,<2'"
    assert install_extra("train") == "python -m pip install 'remote-trainer[train]'"
    assert install_extra("base") == "python -m pip install 'remote-trainer'"


def test_this_environment_is_read() -> None:
    found = read_installed()
    assert any(line.startswith("tokenizers") for line in found["transformers"].requires)
    assert found["remote-trainer"].version == "0.1.0"


def test_every_declared_package_has_a_lower_bound_and_every_extra_a_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = Distribution(
        "0",
        requires=(
            *project["dependencies"],
            *(
                f"{line}{' and' if ';' in line else ';'} extra == '{extra}'"
                for extra, lines in project["optional-dependencies"].items()
                for line in lines
            ),
        ),
        extras=tuple(project["optional-dependencies"]),
    )
    packages = our_packages({"remote-trainer": declared})
    loose = {each.name for each in packages if ">=" not in each.wanted and "==" not in each.wanted}
    assert loose <= {"types-pyyaml"}
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(pin.replace("_", "-").lower().split("==") for pin in pins if "==" in pin)
    outside = [each for each in packages if not allows(each.wanted, pinned[each.name])]
    assert outside == []
    assert {each.name for each in packages if each.extra == "unsloth"} >= {"torch", "vllm"}

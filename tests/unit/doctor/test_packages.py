"""Declared ranges against what is installed, on environments made up for the purpose."""

import tomllib
from pathlib import Path

from remote_trainer.packages import (
    VERSION_SETS,
    Conflict,
    Distribution,
    Package,
    VersionSet,
    allows,
    conflicts,
    install_extra,
    our_packages,
    pip_install,
    reach_of,
    read_installed,
    used_extras,
    version_set,
)

ROOT = Path(__file__).parents[3]
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


def pins_of(file: str) -> dict[str, str]:
    """Package -> version of a file of pins."""
    lines = (ROOT / file).read_text().splitlines()
    return dict(line.replace("_", "-").lower().split("==") for line in lines if "==" in line)


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
    pinned = pins_of("constraints.txt")
    outside = [each for each in packages if not allows(each.wanted, pinned[each.name])]
    assert outside == []
    newest, extras = pins_of("constraints-newest.txt"), ("base", "train", "gguf", "dev")
    named = [each for each in packages if each.extra in extras]
    assert [each for each in named if not allows(each.wanted, newest[each.name])] == []
    assert {each.name for each in packages if each.extra == "unsloth"} >= {"torch", "vllm"}


def test_an_extra_narrows_the_range_of_one_inside_it() -> None:
    requires = (
        "trl<1.17,>=1.14.2; extra == 'train'",
        "remote-trainer[train]; extra == 'unsloth'",
        "trl<=1.15; extra == 'unsloth'",
        "unsloth>=2; extra == 'unsloth'",
    )
    ours = Distribution("0.1.0", requires=requires, extras=("train", "unsloth"))
    installed = {"remote-trainer": ours, "trl": Distribution("1.16.0")}
    packages = our_packages(installed)
    assert [(p.name, p.extra, p.wanted, p.fits) for p in packages] == [
        ("trl", "train", ">=1.14.2,<1.17", True),
        ("trl", "unsloth", ">=1.14.2,<=1.15,<1.17", False),
        ("unsloth", "unsloth", ">=2", False),
    ]
    assert used_extras(packages) == {"train"}
    more = our_packages({**installed, "unsloth": Distribution("2")})
    assert used_extras(more) == {"train", "unsloth"}


def test_the_version_sets_are_those_of_the_files() -> None:
    for file, versions in VERSION_SETS.items():
        pins = pins_of(file)
        assert {name: pins[name] for name in versions} == versions


def test_the_set_that_is_installed_is_told() -> None:
    for file, versions in VERSION_SETS.items():
        installed = {name: Distribution(version) for name, version in versions.items()}
        found = version_set({**installed, "torch": Distribution(f"{versions['torch']}+cpu")})
        assert found is not None
        assert (found.file, found.differs) == (file, ())
        assert found.name == ("newest" if file == "constraints-newest.txt" else "pinned")
        other = version_set({**installed, "torch": Distribution("2.14.1")})
        assert other is not None
        assert (other.file, other.differs) == (file, (f"torch 2.14.1 (not {versions['torch']})",))
    mixed = {"transformers": Distribution("5.20.0"), "rich": Distribution("15")}
    found = version_set(mixed)
    assert found == VersionSet("other", None, ("transformers 5.20.0", "trl missing"))
    assert version_set({"rich": Distribution("15")}) is None

"""Whether the packages that compute on a GPU are of the versions that an engine was tested with."""

from collections.abc import Iterable

from remote_trainer.engines.selection import EngineChoice
from remote_trainer.errors import Problem
from remote_trainer.packages import Package, pip_install


def untested(choice: EngineChoice, packages: Iterable[Package]) -> list[Package]:
    """Of `remote_trainer.packages.our_packages`, those that the chosen engine computes with and
    whose versions are outside the declared ranges. Empty where no GPU engine was chosen."""
    computing: set[tuple[str, str]] = set()
    if choice.backend == "unsloth":
        computing = {("unsloth", name) for name in ("unsloth", "vllm", "torch")}
    elif choice.generation == "vllm":
        # Unsloth's cap on torch does not bind here.
        computing = {("unsloth", "vllm"), ("train", "torch")}
    return [
        each
        for each in packages
        if (each.extra, each.name) in computing and each.version and not each.fits
    ]


def version_problems(choice: EngineChoice, packages: Iterable[Package]) -> list[Problem]:
    """The same as sentences with the way out."""
    engine = "Unsloth" if choice.backend == "unsloth" else "vLLM"
    return [
        Problem(
            each.name,
            f"{each.version} is here, and the engine {engine} is tested with {each.wanted}: "
            f"{pip_install(each.name, each.wanted)}; `train --allow-changed` uses it nevertheless",
        )
        for each in untested(choice, packages)
    ]

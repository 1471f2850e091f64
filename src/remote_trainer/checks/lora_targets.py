"""The layers that `lora.target_modules` selects, resolved before the model is loaded."""

import difflib
from collections.abc import Sequence

from remote_trainer.config import RunConfig
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.models.layer_names import LayerNames, Targets, resolve
from remote_trainer.models.model_facts import ModelFacts

FIELD = "lora.target_modules"


def targets_of(config: RunConfig, facts: ModelFacts) -> Targets:
    """Resolve the names of the config on this model.

    Raises UserInputError that lists every name that cannot have an adapter, or if no name matches.
    """
    layers = facts.layers
    targets = resolve(config.lora.requested, layers)
    problems = [
        Problem(FIELD, _cannot(name, kind, facts))
        for name in targets.missing
        if (kind := layers.kind_of(name)) is not None and name not in layers.experts
    ]
    if not targets.counts and not problems:
        problems.append(Problem(FIELD, _nothing(config, targets, layers)))
    if problems:
        raise UserInputError(problems)
    return targets


def with_names(config: RunConfig, names: tuple[str, ...]) -> RunConfig:
    """The config with names instead of a keyword, as in config.resolved.yaml."""
    lora = config.lora.model_copy(update={"target_modules": names})
    return config.model_copy(update={"lora": lora})


def unmatched(targets: Targets, facts: ModelFacts) -> str | None:
    """A warning about names that match nothing while others do; None without such names."""
    if not targets.missing:
        return None
    experts = [name for name in targets.missing if name in targets.experts]
    nothing = [name for name in targets.missing if name not in targets.experts]
    parts = []
    if nothing:
        parts.append(
            f"{_quoted(nothing)} matches no layer of the model; its linear layers are "
            f"{_listed(facts.layers)}{_closest(nothing, facts.layers)}"
        )
    if experts:
        parts.append(
            f"{_quoted(experts)} are parts of mixture-of-experts layers, which get no adapter"
        )
    return f"{FIELD}: {'; '.join(parts)}"


def _nothing(config: RunConfig, targets: Targets, layers: LayerNames) -> str:
    if isinstance(config.lora.requested, str):
        return (
            f"{config.lora.requested} matches no linear layer in the files of "
            f"{config.model.name}; write the names of the layers that should get an adapter"
        )
    experts = [name for name in targets.names if name in layers.experts]
    why = (
        f" ({_quoted(experts)} are parts of mixture-of-experts layers, which are one weight per "
        "block)"
        if experts
        else ""
    )
    return (
        f"found {list(targets.names)}, but no linear layer of {config.model.name} has such a "
        f"name{why}; its linear layers are {_listed(layers)}: write some of them, or "
        f"auto{_closest(targets.names, layers)}"
    )


def _cannot(name: str, kind: str, facts: ModelFacts) -> str:
    layers = _listed(facts.layers)
    if kind in ("the head", "an embedding"):
        tied = ", and the two share one weight in this model" if facts.is_tied else ""
        return (
            f"{name} is {kind} and cannot have an adapter: log-probabilities are computed from "
            f"the head's weight directly, and exports do not change them{tied}; remove it (the "
            f"linear layers are {layers})"
        )
    return f"{name} is {kind}, and only linear layers can have an adapter; write some of {layers}"


def _listed(layers: LayerNames) -> str:
    names = dict.fromkeys(path.rpartition(".")[2] for path in layers.linear)
    return ", ".join(names) or "none"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _closest(names: Sequence[str], layers: LayerNames) -> str:
    candidates = list(dict.fromkeys(path.rpartition(".")[2] for path in layers.linear))
    pairs = [
        (name, close[0])
        for name in names
        if (close := difflib.get_close_matches(name, candidates, n=1, cutoff=0.6))
    ]
    meant = " and ".join(f"{close!r} for {name!r}" for name, close in pairs)
    return f"; did you mean {meant}?" if meant else ""

"""The adapter that training goes on from: found and checked without loading anything."""

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig, load_resolved
from remote_trainer.engines.protocol import Backend
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.models.safetensors_header import TensorFacts, tensors_in
from remote_trainer.pipeline.backend import adapter_settings
from remote_trainer.pipeline.base_model import BaseRecord, read_record, same_weights
from remote_trainer.run_dir import CHECKPOINT_ADAPTER, MANIFEST, RunDir, file_sha256

FIELD = "model.adapter"
PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
_MATRIX = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# What PEFT can do to a layer beside adding B A. Engine and exports know that product only.
_MORE_THAN_A_PRODUCT = (
    "use_dora",
    "use_rslora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "exclude_modules",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "monteclora_config",
    "velora_config",
)
# The other ways to begin change the base's weights, too.
_BASE_KEPT = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class InitialAdapter:
    """A LoRA adapter on disk, in numbers."""

    named: str
    """As the config names it."""
    weights: Path
    """One safetensors file."""
    sha256: str
    r: int
    alpha: int
    layers: Mapping[str, tuple[int, int]]
    """Path of each adapted linear layer in the model -> its inputs and outputs."""
    made_for: str
    """The base model by its own account; empty where it says nothing."""
    base: BaseRecord | None = None
    """What its run knows of its base."""

    @property
    def target_modules(self) -> tuple[str, ...]:
        """Names of the adapted layers, as lora.target_modules has them."""
        return tuple(sorted({layer.rpartition(".")[2] for layer in self.layers}))

    def doubt(self, config: RunConfig, base: Path) -> str | None:
        """A sentence where the adapter names another base model than the config."""
        model = config.model.name
        if self.base is not None:
            same = same_weights(self.base, base)
        else:
            same = self.made_for in ("", model, f"./{base.name}")
            same = same or Path(self.made_for).resolve() == base.resolve()
        if same:
            return None
        return (
            f"{FIELD}: {self.named} was made for {self.made_for} by its own config, but model.name "
            f"is {model}; its layers fit, but other base weights of the same shape cannot be "
            "detected"
        )


def find_start(config: RunConfig, base: Path | None) -> InitialAdapter | None:
    """The adapter of ``model.adapter``, or None where a fresh one is trained.

    ``base`` is the model's folder, or None while that is not on this machine. Raises UserInputError
    that lists everything that is wrong with the adapter, with the config beside it, or with the
    two models together.
    """
    if config.model.adapter is None:
        return None
    start = _read(config.model.adapter)
    start = replace(start, base=_base_record(start.weights))
    problems = _disagreements(config, start)
    if start.weights.resolve().is_relative_to(os.path.realpath(config.output_dir)):
        problems.append(
            Problem(
                "output_dir",
                f"{config.output_dir} contains the adapter of {FIELD}, which the new run would "
                "overwrite; write another folder",
            )
        )
    problems += _misfits(start, config.model.name, base) if base else []
    if problems:
        raise UserInputError(problems)
    return start


def with_start(config: RunConfig, start: InitialAdapter | None) -> RunConfig:
    """The config with rank, alpha and layers of the adapter that training goes on from."""
    if start is None:
        return config
    lora = config.lora.model_copy(
        update={"r": start.r, "alpha": start.alpha, "target_modules": start.target_modules}
    )
    return config.model_copy(update={"lora": lora})


def apply(backend: Backend, config: RunConfig, start: InitialAdapter | None) -> None:
    """Give the model the adapter, ready to be trained; nothing happens without one."""
    if start is None:
        return
    # It imports torch and PEFT, which `check` and the light install do without.
    from remote_trainer.trainer.checkpoint import read_tensors

    backend.add_adapter(adapter_settings(config))
    read_tensors(start.weights, backend.model)


def _read(named: str) -> InitialAdapter:
    folder = Path(named)
    if not os.path.isdir(folder):
        raise UserInputError.at(
            FIELD,
            f"no folder {named!r}; write a PEFT folder, a finished run, or a folder "
            "checkpoints/step-... of a run",
        )
    run = RunDir(folder)
    if (folder / PEFT_CONFIG).exists():
        return _read_peft(named, folder)
    if run.started:
        if not run.adapter.exists():
            raise UserInputError.at(
                FIELD,
                f"the run {named} is not finished, so it has no adapter yet; name one of its "
                "folders checkpoints/step-...",
            )
        return _read_peft(named, run.adapter, load_resolved(run.resolved_config).model.name)
    if (folder / MANIFEST).exists():
        return _read_checkpoint(named, folder)
    raise UserInputError.at(
        FIELD,
        f"folder {named} holds no {PEFT_CONFIG}, and is neither a run nor a checkpoint; write a "
        "PEFT folder, a finished run, or a folder checkpoints/step-... of a run",
    )


def _base_record(weights: Path) -> BaseRecord | None:
    """Of the run that the adapter, or a checkpoint with it, still stands in; None: of no run."""
    _, above, *higher = weights.resolve().parents
    runs = (RunDir(folder) for folder in (above, *higher[:1]))
    return next((read_record(run) for run in runs if run.started), None)


def _read_peft(named: str, folder: Path, made_for: str | None = None) -> InitialAdapter:
    settings = _peft_settings(folder / PEFT_CONFIG)
    problems = _peft_problems(settings)
    weights = folder / PEFT_WEIGHTS
    if not weights.exists():
        pickle = " (an adapter_model.bin can run code when it is loaded, and is not read)"
        problems.append(
            Problem(
                FIELD,
                f"folder {folder} holds no {PEFT_WEIGHTS}"
                f"{pickle if (folder / 'adapter_model.bin').exists() else ''}; save the adapter "
                "with save_pretrained(..., safe_serialization=True)",
            )
        )
    if problems:
        raise UserInputError(problems)
    base = made_for or settings.get("base_model_name_or_path") or ""
    return _measure(named, weights, settings["r"], int(settings["lora_alpha"]), str(base))


def _peft_settings(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserInputError.at(FIELD, f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(settings, dict):
        raise UserInputError.at(
            FIELD, (f"{file} is not a JSON object; save the adapter again with PEFT")
        )
    return settings


def _peft_problems(settings: Mapping[str, Any]) -> list[Problem]:
    """What this program cannot train further as it is."""
    if settings.get("peft_type") != "LORA":
        kind = settings.get("peft_type")
        return [Problem(FIELD, f"its peft_type is {kind!r}; only LORA can be trained further")]
    found = [f"{name} is {settings[name]!r}" for name in _MORE_THAN_A_PRODUCT if settings.get(name)]
    if settings.get("bias", "none") != "none":
        found.append(f"bias is {settings['bias']!r}")
    if settings.get("init_lora_weights") not in _BASE_KEPT:
        found.append(f"init_lora_weights is {settings['init_lora_weights']!r}")
    problems = [
        Problem(
            FIELD,
            f"its {each}; only plain LoRA can be trained further: merge it into its base and "
            "write the merged folder as model.name",
        )
        for each in found
    ]
    for name in ("r", "lora_alpha"):
        value = settings.get(name)
        whole = isinstance(value, int | float) and value > 0 and value == int(value)
        if not whole or isinstance(value, bool):
            problems.append(
                Problem(FIELD, f"its {name} is {value!r}; it must be an integer above 0")
            )
    return problems


def _read_checkpoint(named: str, folder: Path) -> InitialAdapter:
    run = RunDir(folder.resolve().parent.parent)
    if not run.started:
        raise UserInputError.at(
            FIELD,
            f"{named} is a checkpoint outside its run folder, whose config has its rank and alpha; "
            "write its path inside the run folder",
        )
    config = load_resolved(run.resolved_config)
    weights = folder / CHECKPOINT_ADAPTER
    start = _measure(named, weights, config.lora.r, config.lora.alpha, config.model.name)
    manifest = _peft_settings(folder / MANIFEST)
    if manifest.get("files", {}).get(weights.name, {}).get("sha256") != start.sha256:
        raise UserInputError.at(
            FIELD, f"{weights} changed since it was written; use an earlier checkpoint"
        )
    return start


def _measure(named: str, weights: Path, r: int, alpha: int, made_for: str) -> InitialAdapter:
    """Looks at the tensors. Raises UserInputError if they are not what is said of them."""
    tensors = tensors_in(weights)
    sides: dict[str, dict[str, TensorFacts]] = {}
    others = []
    for name, facts in tensors.items():
        found = _MATRIX.fullmatch(name)
        if found is None or not facts.is_matrix:
            others.append(name)
        else:
            sides.setdefault(found["module"], {})[found["side"]] = facts
    wrong = [
        layer
        for layer, ab in sides.items()
        if set(ab) != {"A", "B"} or ab["A"].shape[0] != r or ab["B"].shape[1] != r
    ]
    head = [layer for layer in sides if layer.rpartition(".")[2] == "lm_head"]
    says = {
        "tensors that are not LoRA matrices of linear layers": others,
        f"layers without two matrices of rank {r}": wrong,
        "a head (log-probabilities are computed from its weight directly)": head,
        "no tensors": [] if tensors else [weights.name],
    }
    problems = [
        Problem(FIELD, f"{weights} holds {what}: {_some(names)}; it cannot be trained further")
        for what, names in says.items()
        if names
    ]
    if problems:
        raise UserInputError(problems)
    layers = {layer: (ab["A"].shape[1], ab["B"].shape[0]) for layer, ab in sides.items()}
    return InitialAdapter(named, weights, file_sha256(weights), r, alpha, layers, made_for)


def _disagreements(config: RunConfig, start: InitialAdapter) -> list[Problem]:
    """Keys of ``lora`` that the config writes otherwise; defaults that are left out say nothing."""
    adapter: dict[str, Any] = {"r": start.r, "alpha": start.alpha}
    wanted: dict[str, Any] = {"r": config.lora.r, "alpha": config.lora.alpha}
    if config.lora.asked != "auto":
        adapter["target_modules"] = list(start.target_modules)
        wanted["target_modules"] = sorted(set(config.lora.target_modules))
    return [
        Problem(
            f"lora.{name}",
            f"found {wanted[name]}, but the adapter of {FIELD} has {value}; omit the key or write "
            f"{value}",
        )
        for name, value in adapter.items()
        if name in config.lora.model_fields_set and wanted[name] != value
    ]


def _misfits(start: InitialAdapter, model: str, base: Path) -> list[Problem]:
    """Layers that the model does not have, has in another size, or has beside the adapted ones.

    Nothing is said where the files of the model name their layers otherwise than the model in
    memory does; `apply` notices then.
    """
    weights = {
        name.removesuffix(".weight"): facts
        for file in sorted(base.glob("*.safetensors"))
        for name, facts in tensors_in(file).items()
    }
    known = {layer: weights[layer] for layer in start.layers if layer in weights}
    if not known:
        return []
    kinds = {_kind(layer) for layer in start.layers}
    says = {
        f"adapts layers that {model} does not have": set(start.layers) - set(known),
        f"was made for layers of other sizes than those of {model}": {
            layer
            for layer, facts in known.items()
            if facts.is_matrix and sorted(facts.shape) != sorted(start.layers[layer])
        },
        f"does not cover layers of {model} of the same kind as the adapted ones": {
            layer for layer in weights if _kind(layer) in kinds and layer not in start.layers
        },
    }
    return [
        Problem(
            FIELD,
            f"{start.named} {what}: {_some(layers)}; write the model it was made for as model.name",
        )
        for what, layers in says.items()
        if layers
    ]


def _kind(layer: str) -> str:
    """The same for a layer in every block."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", layer)


def _some(names: Collection[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{min(names)}{more}"

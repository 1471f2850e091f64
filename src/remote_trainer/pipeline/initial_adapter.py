"""The adapter that training continues: found and checked without loading anything."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig, load_resolved
from remote_trainer.engines.protocol import Backend
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.json_files import read_object
from remote_trainer.models.safetensors_header import TensorFacts, tensors_in
from remote_trainer.pipeline.backend import adapter_settings
from remote_trainer.pipeline.base_model import BaseRecord, read_record, same_weights
from remote_trainer.run_dir import CHECKPOINT_ADAPTER, MANIFEST, RunDir, file_sha256

FIELD = "model.adapter"
PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
_MATRIX = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# PEFT settings that do more than add B A to a layer. Engine and exports support only that.
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
# Other initialisations also change the base weights.
_BASE_KEPT = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class InitialAdapter:
    """Facts about a LoRA adapter on disk."""

    named: str
    """As written in the config."""
    weights: Path
    """One safetensors file."""
    sha256: str
    r: int
    alpha: int
    layers: Mapping[str, tuple[int, int]]
    """Path of each adapted linear layer -> (input size, output size)."""
    made_for: str
    """The base model according to its own config; empty if unknown."""
    base: BaseRecord | None = None
    """The base according to its run."""

    @property
    def target_modules(self) -> tuple[str, ...]:
        """Names of the adapted layers, as lora.target_modules has them."""
        return tuple(sorted({layer.rpartition(".")[2] for layer in self.layers}))

    def doubt(self, config: RunConfig, base: Path) -> str | None:
        """A warning if the adapter and the config name different base models."""
        model = config.model.name
        if self.base is not None:
            same = same_weights(self.base, base)
        else:
            same = self.made_for in ("", model, f"./{base.name}")
            same = same or _is_same_folder(self.made_for, base)
        if same:
            return None
        return (
            f"{FIELD}: according to its config {self.named} was trained on {self.made_for}, but "
            f"model.name is {model}; its layers fit, but other base weights of the same shape "
            "cannot be detected"
        )


def _is_same_folder(named: str, folder: Path) -> bool:
    try:
        return os.path.samefile(named, folder)
    except (OSError, ValueError):  # no such folder, or no name of one
        return False


def find_start(config: RunConfig, base: Path | None) -> InitialAdapter | None:
    """The adapter of ``model.adapter``, or None if a new one is trained.

    ``base`` is the model's folder, or None if it is not on this machine yet. Raises UserInputError
    that lists every problem of the adapter and every conflict with config or base.
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
    """The config with rank, alpha and layers of the initial adapter."""
    if start is None:
        return config
    lora = config.lora.model_copy(
        update={"r": start.r, "alpha": start.alpha, "target_modules": start.target_modules}
    )
    return config.model_copy(update={"lora": lora})


def apply(backend: Backend, config: RunConfig, start: InitialAdapter | None) -> None:
    """Add the initial adapter to the model, trainable; does nothing without one."""
    if start is None:
        return
    # It imports torch and PEFT, which `check` and the light install do not need.
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
        f"folder {named} has no {PEFT_CONFIG} and is neither a run nor a checkpoint; write a PEFT "
        "folder, a finished run, or a folder checkpoints/step-... of a run",
    )


def _base_record(weights: Path) -> BaseRecord | None:
    """The record of the run that contains the adapter or its checkpoint; None: no run does."""
    _, above, *higher = weights.resolve().parents
    runs = (RunDir(folder) for folder in (above, *higher[:1]))
    return next((read_record(run) for run in runs if run.started), None)


def _read_peft(named: str, folder: Path, made_for: str | None = None) -> InitialAdapter:
    settings = _peft_settings(folder / PEFT_CONFIG)
    problems = _peft_problems(settings)
    weights = folder / PEFT_WEIGHTS
    if not weights.exists():
        pickle = " (adapter_model.bin can run code when loaded and is not supported)"
        problems.append(
            Problem(
                FIELD,
                f"folder {folder} has no {PEFT_WEIGHTS}"
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
        return read_object(file)
    except (OSError, ValueError) as error:
        message = f"{file} cannot be read as JSON: {error}; save the adapter again with PEFT"
        raise UserInputError.at(FIELD, message) from None


def _peft_problems(settings: Mapping[str, Any]) -> list[Problem]:
    """Why this adapter cannot be trained further."""
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
        whole = isinstance(value, int | float) and 0 < value < 2**31 and value == int(value)
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
            f"{named} is a checkpoint outside its run folder, whose config is needed for rank and "
            "alpha; write its path inside the run folder",
        )
    config = load_resolved(run.resolved_config)
    weights = folder / CHECKPOINT_ADAPTER
    start = _measure(named, weights, config.lora.r, config.lora.alpha, config.model.name)
    files = _peft_settings(folder / MANIFEST).get("files")
    facts = files.get(weights.name) if isinstance(files, dict) else None
    if not isinstance(facts, dict) or facts.get("sha256") != start.sha256:
        raise UserInputError.at(
            FIELD, f"{weights} changed since it was written; use an earlier checkpoint"
        )
    return start


def _measure(named: str, weights: Path, r: int, alpha: int, made_for: str) -> InitialAdapter:
    """Read the tensor headers. Raises UserInputError if they do not match the settings."""
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
        Problem(FIELD, f"{weights} contains {what}: {_some(names)}; it cannot be trained further")
        for what, names in says.items()
        if names
    ]
    if problems:
        raise UserInputError(problems)
    layers = {layer: (ab["A"].shape[1], ab["B"].shape[0]) for layer, ab in sides.items()}
    return InitialAdapter(named, weights, file_sha256(weights), r, alpha, layers, made_for)


def _disagreements(config: RunConfig, start: InitialAdapter) -> list[Problem]:
    """Keys of ``lora`` that the config sets to other values; omitted keys do not count."""
    adapter: dict[str, Any] = {"r": start.r, "alpha": start.alpha}
    wanted: dict[str, Any] = {"r": config.lora.r, "alpha": config.lora.alpha}
    if config.lora.requested != "auto":
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
    """Layers that the model lacks, has in another size, or has in addition to the adapted ones.

    Returns nothing if the files of the model use other layer names than the loaded model; `apply`
    raises in that case.
    """
    weights = {
        name.removesuffix(".weight"): facts
        for file in sorted(base.glob("*.safetensors"))
        for name, facts in tensors_in(file).items()
    }
    matched = {layer: weights[layer] for layer in start.layers if layer in weights}
    if not matched:
        return []
    kinds = {_kind(layer) for layer in start.layers}
    says = {
        f"adapts layers that {model} does not have": set(start.layers) - set(matched),
        f"was trained on layers of other sizes than those of {model}": {
            layer
            for layer, facts in matched.items()
            if facts.is_matrix and sorted(facts.shape) != sorted(start.layers[layer])
        },
        f"lacks layers of {model} of the same kind as its adapted layers": {
            layer for layer in weights if _kind(layer) in kinds and layer not in start.layers
        },
    }
    return [
        Problem(
            FIELD,
            f"{start.named} {what}: {_some(layers)}; write the model it was trained on as "
            "model.name",
        )
        for what, layers in says.items()
        if layers
    ]


def _kind(layer: str) -> str:
    """The path of a layer without the block number."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", layer)


def _some(names: Collection[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{min(names)}{more}"

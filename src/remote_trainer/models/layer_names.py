"""The layers of a model, from its file headers: loads neither weights nor torch."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from remote_trainer.models.safetensors_header import TensorFacts, tensors_in

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The projections of Llama and most later models."""
AUTO, ALL_LINEAR = KEYWORDS = ("auto", "all-linear")

_IN_BLOCK = re.compile(r"\.\d+\.")
_EXPERT = re.compile(r"(^|\.)experts\.")
_EMBEDDINGS = (
    "embed_tokens",
    "embed_positions",
    "embed_in",
    "wte",
    "wpe",
    "word_embeddings",
    "tok_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "embeddings",
)
_HEADS = ("lm_head", "embed_out", "output", "output_layer")
POSITIONS = ("wpe", "embed_positions", "position_embeddings")
_QUANTISED = (".qweight", ".weight_packed")


@dataclass(frozen=True)
class LayerNames:
    """Modules of a model that have weights, by their paths in its files."""

    tensors: Mapping[str, TensorFacts]

    @classmethod
    def of(cls, folder: Path) -> "LayerNames":
        """Reads all safetensors files. Raises UserInputError for a truncated file."""
        files = sorted(folder.glob("*.safetensors"))
        return cls({name: facts for file in files for name, facts in tensors_in(file).items()})

    @cached_property
    def linear(self) -> tuple[str, ...]:
        """Paths of linear layers without embeddings and head, in file order."""
        routed = {name.partition(".experts.")[0] for name in self.tensors if ".experts." in name}
        return tuple(
            path
            for path in self._modules
            if self._is_matrix(path)
            and not _EXPERT.search(path)
            and not _is_router(path, routed)
            and _last(path) not in (*_EMBEDDINGS, *_HEADS)
        )

    @cached_property
    def experts(self) -> tuple[str, ...]:
        """Names of expert weights in the files; transformers merges each kind into one weight, so
        they are not layers in memory."""
        inside = (path for path in self.tensors if _EXPERT.search(path))
        parts = (path.removesuffix(".weight").rpartition(".")[2] for path in inside)
        return tuple(dict.fromkeys(part for part in parts if part != "bias"))

    @property
    def in_blocks(self) -> tuple[str, ...]:
        """The linear layers of the repeated blocks."""
        return tuple(path for path in self.linear if _IN_BLOCK.search(path))

    def rows_of(self, names: Collection[str]) -> int | None:
        """Rows of the first matrix outside the blocks whose module has one of the names."""
        for path in self._modules:
            if _last(path) in names and self._is_matrix(path) and not _IN_BLOCK.search(path):
                return self.tensors[f"{path}.weight"].shape[0]
        return None

    @property
    def vocabulary(self) -> int | None:
        """Rows of the input embedding; None if no module has a name used for it."""
        names = [name for name in _EMBEDDINGS if name not in POSITIONS]
        return self.rows_of([name for name in names if name != "token_type_embeddings"])

    @property
    def learns_positions(self) -> bool:
        """Whether the model has learned position embeddings, which limit its length."""
        return self.rows_of(POSITIONS) is not None

    def kind_of(self, name: str) -> str | None:
        """What a name is if not a linear layer: head, embedding, norm, ...; None: nothing."""
        if _last(name) in _HEADS or (_last(name) in _EMBEDDINGS):
            kind = "the head" if _last(name) in _HEADS else "an embedding"
            return kind if matching(name, self._modules) or _last(name) in ("lm_head",) else None
        if matching(name, self._modules):
            return "a norm or another layer that is not linear"
        if any(f".{name}." in f".{path}" for path in self._modules):
            return "a block of several layers"
        return None

    @cached_property
    def _modules(self) -> tuple[str, ...]:
        found = dict.fromkeys(
            name.removesuffix(end)
            for name in self.tensors
            for end in (".weight", *_QUANTISED)
            if name.endswith(end)
        )
        return tuple(found)

    def _is_matrix(self, path: str) -> bool:
        if any(path + end in self.tensors for end in _QUANTISED):
            return True
        weight = self.tensors.get(f"{path}.weight")
        return weight is not None and len(weight.shape) == 2


@dataclass(frozen=True)
class Targets:
    """The layers of a model that get an adapter."""

    names: tuple[str, ...]
    """The value of lora.target_modules for this model."""
    counts: Mapping[str, int]
    """Name -> number of layers with it; only names that occur."""
    missing: tuple[str, ...]
    """Names that no linear layer has."""
    experts: tuple[str, ...]
    """Names of expert weights, which get no adapter."""

    @property
    def layers(self) -> int:
        """Number of adapted layers."""
        return sum(self.counts.values())

    def sentence(self) -> str:
        """One sentence for the user: how many layers, and which."""
        sizes = set(self.counts.values())
        if len(sizes) == 1:
            each = f"{', '.join(self.counts)} ({next(iter(sizes))} each)"
        else:
            each = ", ".join(f"{name} ({count})" for name, count in self.counts.items())
        text = f"adapter on {self.layers} layers: {each}"
        if self.experts:
            text += (
                f"; none on the experts ({', '.join(self.experts)}), which are stored as one "
                "weight per block, not as linear layers"
            )
        return text


def resolve(requested: str | Iterable[str], layers: LayerNames) -> Targets:
    """Resolve ``auto``, ``all-linear`` or a list of names.

    auto: the seven projections if the model has them all, otherwise the names of all linear layers
    in its blocks. Both leave out the names of expert weights.
    """
    if requested == AUTO:
        own = _names(layers.in_blocks)
        seven = all(any(_last(path) == name for path in layers.in_blocks) for name in SEVEN)
        names = SEVEN if seven else own
        names = tuple(name for name in names if name not in layers.experts)
    elif requested == ALL_LINEAR:
        names = tuple(name for name in _names(layers.linear) if name not in layers.experts)
    else:
        names = tuple(dict.fromkeys([requested] if isinstance(requested, str) else requested))
    counts: Counter[str] = Counter()
    for name in names:
        if _last(name) not in layers.experts:
            counts[name] += len(matching(name, layers.linear))
    found = {name: count for name, count in counts.items() if count}
    missing = tuple(name for name in names if name not in found)
    return Targets(names, found, missing, layers.experts)


def matching(name: str, paths: Iterable[str]) -> list[str]:
    """Paths that a name matches, by PEFT's rule: the whole path or its last parts."""
    return [path for path in paths if path == name or path.endswith(f".{name}")]


def _names(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_last(path) for path in paths))


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _is_router(path: str, routed: Collection[str]) -> bool:
    """Routers choose experts; in memory they are not linear layers."""
    return path.rpartition(".")[0] in routed or ".router." in f".{path}."

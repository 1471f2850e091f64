"""What one update asks of a device, counted without one: operators, transfers and host reads.

    python benchmarks/device_work.py [--model FOLDER] [--set a.b=c ...] [--where]

A model (default: the built-in one) trains on a fake device. Its tensors are CPU tensors that report
another device, so every copy between host and device is seen. A host read (`item`, `tolist`, `cpu`,
a bool) makes the program wait until the device has done all its work; a transfer is a copy to the
device; an operator is about one kernel launch. As on a GPU, an operation on tensors of both sides
is an error.
"""

import argparse
import collections
import contextlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

ROOT = Path(__file__).parents[1]
# A name that torch knows, whose backward pass runs in the calling thread, and that no library
# treats in a way of its own.
DEVICE = torch.device("lazy")
aten = torch.ops.aten
PACKAGE = "remote_trainer/"
UPDATES = 3
"""The last one is counted: the first finds out which fast paths a model takes."""

READS = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}
SIZED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor,
}
"""Their results have a shape that only the values tell, so the host waits for it."""
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXES = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}


@dataclass
class Counts:
    """Of one or more updates."""

    operators: int = 0
    """Views are none."""
    host_reads: collections.Counter[str] = field(default_factory=collections.Counter)
    """Place in the code -> how often."""
    transfers: collections.Counter[str] = field(default_factory=collections.Counter)

    @property
    def own_reads(self) -> int:
        """Host reads of this program; those of TRL and transformers are for their logs."""
        return sum(n for place, n in self.host_reads.items() if place.startswith(PACKAGE))


class DeviceTensor(torch.Tensor):
    """A CPU tensor that says it is on the device."""

    raw: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "DeviceTensor":
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=DEVICE,
        )
        return made

    def __init__(self, raw: torch.Tensor) -> None:
        self.raw = raw

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype})"

    def tolist(self) -> Any:
        """torch refuses it for subclasses."""
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a device tensor to numpy; copy it to the CPU first")

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError(f"{function} was called outside of the device")


class FakeDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs what is on the device on the CPU, and counts."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = Counts()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        wanted = kwargs.get("device")
        to_device = wanted is not None and torch.device(wanted).type == DEVICE.type
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        there = [isinstance(x, DeviceTensor) for x in tensors]
        if not to_device and not any(there):
            return function(*args, **kwargs)
        if to_device:
            kwargs["device"] = torch.device("cpu")
        result_there = self._count(function, args, kwargs, tensors, there, to_device)
        raw = function(*tree_map(_raw, args), **tree_map(_raw, kwargs))
        if not result_there:
            return raw if raw is not _raw(args[0]) else args[0]
        wrapped = tree_map(lambda x: DeviceTensor(x) if isinstance(x, torch.Tensor) else x, raw)
        corrected = return_and_correct_aliasing  # of views and of operations in place
        return corrected(function, args, kwargs, wrapped)  # type: ignore[no-untyped-call]

    def _count(
        self,
        function: Any,
        args: Any,
        kwargs: Any,
        tensors: list[torch.Tensor],
        there: list[bool],
        to_device: bool,
    ) -> bool:
        """Whether the result is on the device."""
        counts = self.counts
        if function is aten.copy_.default:
            if there[0] != there[1]:
                (counts.transfers if there[0] else counts.host_reads)[_place()] += 1
            return there[0]
        if function is aten._to_copy.default and "device" in kwargs and to_device != there[0]:
            (counts.transfers if to_device else counts.host_reads)[_place()] += 1
            return to_device
        if function in READS or function in SIZED_BY_VALUES:
            counts.host_reads[_place()] += 1
        elif function in INDEXES:
            indices = [x for x in args[1] if x is not None]
            if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
                counts.host_reads[_place()] += 1
            if not all(isinstance(x, DeviceTensor) for x in indices):
                counts.transfers[_place()] += 1
        elif any(not on and x.dim() for x, on in zip(tensors, there, strict=True)):
            raise RuntimeError(f"{function}: tensors are on the device and on the CPU")
        counts.operators += not _is_view(function)
        return True


def _raw(x: Any) -> Any:
    return x.raw if isinstance(x, DeviceTensor) else x


def _is_view(function: Any) -> bool:
    return any(a.alias_info and not a.alias_info.is_write for a in function._schema.arguments)


def _place() -> str:
    """The innermost line outside of torch and this file, as package/file:line."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if "torch" in path.parts or path == Path(__file__):
            continue
        for root in (ROOT / "src", *filter(None, map(Path, sys.path))):
            if path.is_relative_to(root):
                return f"{path.relative_to(root)}:{frame.lineno}"
        return f"{path}:{frame.lineno}"
    raise AssertionError("this file is called by somebody")


def _tensor(on_cpu: Any) -> Any:
    """`torch.tensor`, whose copy to a device no mode sees."""

    def tensor(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
        made: torch.Tensor = on_cpu(data, **options)
        return made if device is None else made.to(device)

    return tensor


@contextlib.contextmanager
def fake_device() -> Iterator[FakeDevice]:
    """Models and trainers of this block are put on the device."""
    from accelerate.state import PartialState
    from transformers import TrainingArguments

    with (
        mock.patch.object(
            TrainingArguments, "device", property(lambda self: self._setup_devices and DEVICE)
        ),
        mock.patch.object(PartialState, "_shared_state", {}),
        mock.patch.dict(os.environ, {"ACCELERATE_TORCH_DEVICE": DEVICE.type}),
        mock.patch.object(torch, "tensor", _tensor(torch.tensor)),
        # It knows the devices that have autocast, and refuses others.
        mock.patch.object(torch, "is_autocast_enabled", return_value=False),
        FakeDevice() as mode,
    ):
        yield mode


def engine_of(model: Any, tokenizer: Any) -> Any:
    """The engine with the model on the device of this block, and a fresh adapter."""
    from remote_trainer.engines.transformers_backend import TransformersBackend
    from remote_trainer.records import AdapterSettings

    backend = TransformersBackend(model.to(DEVICE), tokenizer)
    backend.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "v_proj", "down_proj"), seed=0))
    return backend


def measure(
    folder: Path, config: Any, rows: list[Any], run_folder: Path
) -> tuple[list[dict[str, Counts]], dict[str, str]]:
    """Train as ``config`` says: (phase -> counts of every update, fast path -> whether it is on).

    Phases are sampling, update (all else up to the optimizer's step) and log.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    from remote_trainer.rewards import RewardFunction
    from remote_trainer.run_dir import RunDir
    from remote_trainer.trainer.grpo import RewardTrainer
    from remote_trainer.trainer.run_log import RunLog

    updates: list[dict[str, Counts]] = []

    class Phases(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            updates.append(collections.defaultdict(Counts))
            device.counts = updates[-1]["update"]

        def on_step_end(self, *_: Any, **__: Any) -> None:
            device.counts = updates[-1]["log"]

    # Outside of the block: a mode disturbs how transformers builds models on the meta device.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.requires_grad_(False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with fake_device() as device:
        backend = engine_of(model, tokenizer)
        sample = backend.generate

        def counted_sampling(*args: Any) -> Any:
            before, device.counts = device.counts, updates[-1]["sampling"]
            try:
                return sample(*args)
            finally:
                device.counts = before

        backend.generate = counted_sampling
        place = RunDir(run_folder)
        reward = RewardFunction(backend, config.reward, config.training.max_completion_length)
        log = RunLog(place, lambda line, updates: None)
        encoded = [backend.prompt_tokenizer.encode_row(row) for row in rows]
        RewardTrainer(backend, reward, encoded, config, place, log, [Phases()]).train()
    return updates, backend.describe()["ways"]


def config_of(settings: list[str]) -> Any:
    """The shipped supervised config for `UPDATES` updates, without probes."""
    from remote_trainer.config import load_config

    fixed = [f"training.max_steps={UPDATES}", "training.save_steps=1000", "guard.action=off"]
    return load_config(ROOT / "configs" / "supervised.yaml", [*fixed, *settings])


def rows_of(config: Any) -> list[Any]:
    """As many rows as the counted updates need."""
    from remote_trainer.records import Row

    lines = (ROOT / config.with_data().train).read_text(encoding="utf-8").splitlines()
    read = [json.loads(line) for line in lines[: UPDATES * config.training.prompts_per_update]]
    return [
        Row([{"role": "user", "content": each["prompt"]}], {"answer": each["answer"]}, f"row {i}")
        for i, each in enumerate(read)
    ]


def table(counts: dict[str, Counts]) -> str:
    """One line a phase."""
    lines = ["| phase | operators | host reads | of them our own | transfers to the device |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for phase, each in counts.items():
        reads, transfers = each.host_reads.total(), each.transfers.total()
        lines.append(f"| {phase} | {each.operators} | {reads} | {each.own_reads} | {transfers} |")
    return "\n".join(lines)


def main() -> None:
    """Print the counts of one update."""
    from remote_trainer.models.resolve import resolve_model

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="builtin/smollm2-135m-instruct")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", dest="settings")
    parser.add_argument("--where", action="store_true", help="also the lines of code")
    asked = parser.parse_args()
    config = config_of(asked.settings)
    with tempfile.TemporaryDirectory() as temporary:
        model, folder = Path(resolve_model(asked.model)), Path(temporary) / "run"
        updates, ways = measure(model, config, rows_of(config), folder)
    counts = updates[-1]
    print(table(counts))
    for way, state in ways.items():
        print(f"{way}: {state}")
    if asked.where:
        for phase, each in counts.items():
            for kind in ("host_reads", "transfers"):
                for place, number in getattr(each, kind).most_common():
                    print(f"{phase}: {kind} {number:4} {place}")


if __name__ == "__main__":
    main()

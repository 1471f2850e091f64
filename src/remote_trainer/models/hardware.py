"""What this machine is made of, and what the installed torch makes of it."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from remote_trainer.cache_folder import cache_folder

if TYPE_CHECKING:
    import torch

GB = 1e9
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""The memory limit of a container, where the system has such: Linux alone."""


@dataclass(frozen=True)
class Gpu:
    """A CUDA device, as torch or the driver sees it."""

    name: str
    memory_gb: float
    capability: tuple[int, int] | None = None
    """None where the driver was asked, not torch."""
    driver: str | None = None
    """Version of the driver; None where torch was asked."""


@dataclass(frozen=True)
class Torch:
    """What the installed torch makes of this machine."""

    version: str
    cuda_build: str | None = None
    """Version of CUDA it was built for; None: for the CPU alone."""
    gpus: tuple[Gpu, ...] = ()
    bf16_cpu: bool = False
    """Whether the processor multiplies bfloat16 itself."""
    bf16_gpu: bool = False
    """Whether the first GPU does."""
    orders_weights: bool = True
    """Whether it keeps weights in the order that the processor multiplies them in."""
    error: str | None = None
    """Why it cannot be imported; the rest is unknown then."""


@dataclass(frozen=True)
class Machine:
    """Processor, memory, disk and the GPUs that the driver knows."""

    cores: int
    """Cores this process may use."""
    memory_gb: float
    """Memory it may use: the machine's, or the limit of its container."""
    cache_free_gb: float
    """Room on the disk of the cache folder."""
    gpus: tuple[Gpu, ...] = ()
    """By nvidia-smi, whether or not torch can use them."""


def find_machine() -> Machine:
    """Look around without torch."""
    folder = cache_folder().absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return Machine(_cores(), _memory_gb(), shutil.disk_usage(there).free / GB, driver_gpus())


def find_torch() -> Torch | None:
    """Ask torch; None where it is not installed."""
    if find_spec("torch") is None:
        return None
    try:
        import torch
    except (ImportError, OSError) as error:  # a library of CUDA or of the system is missing
        return Torch(version("torch"), error=f"{type(error).__name__}: {error}")
    gpus = tuple(_torch_gpu(place) for place in range(torch.cuda.device_count()))
    return Torch(
        version=torch.__version__,
        cuda_build=torch.version.cuda,
        gpus=gpus,
        bf16_cpu=computes_in_bfloat16(torch.device("cpu")),
        bf16_gpu=bool(gpus) and computes_in_bfloat16(torch.device("cuda")),
        orders_weights=orders_weights(),
    )


def computes_in_bfloat16(device: "torch.device") -> bool:
    """Whether the processor multiplies bfloat16 itself; others emulate it, slower than float32."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def orders_weights() -> bool:
    """Whether torch was built with oneDNN and its product of ordered weights."""
    import torch

    there = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return there and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def why_no_cgroup() -> str | None:
    """Why no limit of a container is read here; None: it is, where one is set."""
    system = platform.system()
    return None if system == "Linux" else f"{system} has no cgroups"


def _torch_gpu(place: int) -> Gpu:
    import torch

    seen = torch.cuda.get_device_properties(place)
    return Gpu(seen.name, seen.total_memory / GB, (seen.major, seen.minor))


def driver_gpus() -> tuple[Gpu, ...]:
    """What nvidia-smi lists; nothing without it or without a working driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    asked = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [program, *asked], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    lines = [line.split(", ") for line in done.stdout.splitlines() if done.returncode == 0]
    return tuple(
        Gpu(line[0], float(line[1]) * 2**20 / GB, driver=line[2])
        for line in lines
        if len(line) == 3 and line[1].isdigit()
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gb() -> float:
    size: float = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if why_no_cgroup() is None and CGROUP_LIMIT.exists():
        limit = CGROUP_LIMIT.read_text().strip()
        size = min(size, float(limit)) if limit.isdigit() else size
    return size / GB

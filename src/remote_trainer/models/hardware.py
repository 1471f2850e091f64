"""The hardware of this machine, and what the installed torch supports on it."""

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
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
_NO_LIMIT = 2**60
"""Limits of at least this many bytes mean "no limit" in cgroups version 1."""


@dataclass(frozen=True)
class Gpu:
    """A CUDA device, as reported by torch or the driver."""

    name: str
    memory_gb: float
    capability: tuple[int, int] | None = None
    """None if the driver reported the device, not torch."""
    driver: str | None = None
    """Driver version; None if torch reported the device."""


@dataclass(frozen=True)
class Torch:
    """What the installed torch supports on this machine."""

    version: str
    cuda_build: str | None = None
    """CUDA version it was built for; None: CPU-only build."""
    gpus: tuple[Gpu, ...] = ()
    bf16_cpu: bool = False
    """Whether the processor computes in bfloat16 natively."""
    bf16_gpu: bool = False
    """Whether the first GPU does."""
    ordered_products: bool = True
    """Whether it supports prepacked oneDNN weights, which the fast path for CPUs needs."""
    error: str | None = None
    """Why it cannot be imported; the other fields are then unknown."""


@dataclass(frozen=True)
class Machine:
    """Processor, memory, disk and the GPUs that the driver reports."""

    cores: int
    """Cores this process may use."""
    memory_gb: float
    """Memory it may use: the machine's, or the limit of its container."""
    cache_free_gb: float
    """Free space on the disk of the cache folder."""
    gpus: tuple[Gpu, ...] = ()
    """From nvidia-smi, whether or not torch can use them."""


def find_machine() -> Machine:
    """Inspect the machine without importing torch."""
    folder = cache_folder().absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return Machine(_cores(), memory_gb(), shutil.disk_usage(there).free / GB, driver_gpus())


def find_torch() -> Torch | None:
    """Inspect torch; None if it is not installed."""
    if find_spec("torch") is None:
        return None
    try:
        import torch
    except (ImportError, OSError) as error:  # a CUDA or system library is missing
        return Torch(version("torch"), error=f"{type(error).__name__}: {error}")
    gpus = tuple(_torch_gpu(place) for place in range(torch.cuda.device_count()))
    return Torch(
        version=torch.__version__,
        cuda_build=torch.version.cuda,
        gpus=gpus,
        bf16_cpu=computes_in_bfloat16(torch.device("cpu")),
        bf16_gpu=bool(gpus) and computes_in_bfloat16(torch.device("cuda")),
        ordered_products=has_ordered_products(),
    )


def computes_in_bfloat16(device: "torch.device") -> bool:
    """Whether the device computes in bfloat16 natively; emulation is slower than float32."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def has_ordered_products() -> bool:
    """Whether the installed torch can multiply with prepacked oneDNN weights."""
    import torch

    available = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def why_no_cgroup() -> str | None:
    """Why container memory limits are not read here; None: they are."""
    system = platform.system()
    return None if system == "Linux" else f"{system} has no cgroups"


def _torch_gpu(place: int) -> Gpu:
    import torch

    seen = torch.cuda.get_device_properties(place)
    return Gpu(seen.name, seen.total_memory / GB, (seen.major, seen.minor))


def driver_gpus(timeout_s: float = 30) -> tuple[Gpu, ...]:
    """GPUs listed by nvidia-smi; empty without it, or if it does not answer in time."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    lines = [line.split(", ") for line in done.stdout.splitlines() if done.returncode == 0]
    return tuple(
        Gpu(line[0], float(line[1]) * 2**20 / GB, driver=line[2])
        for line in lines
        if len(line) == 3 and line[1].isdigit()
    )


def card_memory(patience_s: float = 30) -> tuple[float, float] | None:
    """(total, free) bytes of the first GPU that this process may use, by nvidia-smi; None where it
    does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = ["--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    try:
        done = subprocess.run(
            [program, *asked, *(["--id", visible] if visible else [])],
            capture_output=True, text=True, timeout=patience_s, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    numbers = (done.stdout.splitlines() or [""])[0].split(", ")
    if done.returncode != 0 or len(numbers) != 2 or not all(each.isdigit() for each in numbers):
        return None
    total, free = (float(each) * 2**20 for each in numbers)
    return total, free


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gb() -> float:
    """Memory that this process may use: the machine's, or the limit of its container."""
    size: float = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([size, *(limit for limit, _ in _container_memory())]) / GB


def free_in_container() -> float | None:
    """Bytes that this process can still use within its container limits; None if unlimited.

    The host's free memory does not reflect these limits.
    """
    return min((max(0.0, limit - used) for limit, used in _container_memory()), default=None)


def memory_in_use() -> tuple[float, float] | None:
    """(used, limit) in bytes of the container that is nearest to its limit; of the machine where
    no container has one, and None where it does not tell."""
    if limits := _container_memory():
        limit, used = min(limits, key=lambda found: found[0] - found[1])
        return used, limit
    total, free = (
        _value_of(name, Path("/proc/meminfo")) for name in ("MemTotal:", "MemAvailable:")
    )
    return (1024 * (total - free), 1024 * total) if total else None


def resident_bytes() -> float:
    """Memory that this process holds now; 0 where the system does not tell."""
    pages = (_text_of(Path("/proc/self/statm")) or "0 0").split()[1]
    return float(pages) * os.sysconf("SC_PAGE_SIZE")


def _container_memory() -> list[tuple[float, float]]:
    """(limit, used) in bytes of every cgroup of this process and its parents that has a limit.

    Inactive page cache counts as free: the kernel reclaims it on demand.
    """
    newer = ("memory.max", "memory.current", "inactive_file")
    older = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    if why_no_cgroup():
        return []
    found: list[tuple[float, float]] = []
    for folder in _own_groups():
        for limit_file, used_file, kept in (newer, older):
            limit, used = _number_in(folder / limit_file), _number_in(folder / used_file)
            if limit is not None and limit < _NO_LIMIT:
                held = (used or 0.0) - _value_of(kept, folder / "memory.stat")
                found.append((limit, max(0.0, held)))
    return found


def _own_groups() -> list[Path]:
    """Folders of the cgroups of this process, including their parents."""
    found: dict[Path, None] = {}
    for line in (_text_of(OWN_CGROUP) or "").splitlines():
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds and "memory" not in kinds.split(","):
            continue
        root = CGROUPS / "memory" if kinds else CGROUPS
        own = root / path.strip("/")
        # In a container its own cgroup is the root, but the path is that of the host.
        around = [own, *own.parents]
        found |= dict.fromkeys(around[: around.index(root) + 1] if root in around else [root])
    return list(found) or [CGROUPS]


def _value_of(name: str, file: Path) -> float:
    """One value from a file with a name and a number per line; 0 if missing."""
    lines = (line.split() for line in (_text_of(file) or "").splitlines())
    return next((float(line[1]) for line in lines if len(line) >= 2 and line[0] == name), 0.0)


def _number_in(file: Path) -> float | None:
    text = (_text_of(file) or "").strip()
    return float(text) if text.isdigit() else None


def _text_of(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None

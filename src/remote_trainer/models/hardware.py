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
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
_NO_LIMIT = 2**60
"""From this many bytes on a limit is none: version 1 of cgroups writes a number in its place."""


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
    ordered_products: bool = True
    """Whether it multiplies weights in oneDNN's order, on which the fast path for CPUs stands."""
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
        ordered_products=has_ordered_products(),
    )


def computes_in_bfloat16(device: "torch.device") -> bool:
    """Whether the processor multiplies bfloat16 itself; others emulate it, slower than float32."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def has_ordered_products() -> bool:
    """Whether the installed torch multiplies weights that oneDNN keeps in its own order."""
    import torch

    available = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def why_no_cgroup() -> str | None:
    """Why no limit of a container is read here; None: it is, where one is set."""
    system = platform.system()
    return None if system == "Linux" else f"{system} has no cgroups"


def _torch_gpu(place: int) -> Gpu:
    import torch

    seen = torch.cuda.get_device_properties(place)
    return Gpu(seen.name, seen.total_memory / GB, (seen.major, seen.minor))


def driver_gpus(patience_s: float = 30) -> tuple[Gpu, ...]:
    """What nvidia-smi lists; nothing without it, or without a driver that answers in time."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    asked = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [program, *asked], capture_output=True, text=True, timeout=patience_s, check=False
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


def _memory_gb() -> float:
    size: float = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([size, *(limit for limit, _ in _container_memory())]) / GB


def free_in_container() -> float | None:
    """Bytes that the limits of this process's container leave it; None where there is no limit.

    The host's free memory says nothing of them.
    """
    return min((max(0.0, limit - used) for limit, used in _container_memory()), default=None)


def _container_memory() -> list[tuple[float, float]]:
    """(limit, used) in bytes of every control group around this process that has a limit.

    What files that were read still hold counts as free: the kernel gives it back when asked.
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
    """Folders of the control groups this process is in, with those around them."""
    found: dict[Path, None] = {}
    for line in (_text_of(OWN_CGROUP) or "").splitlines():
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds and "memory" not in kinds.split(","):
            continue
        root = CGROUPS / "memory" if kinds else CGROUPS
        own = root / path.strip("/")
        # A container sees its own group as the root, and the path is that of the host.
        around = [own, *own.parents]
        found |= dict.fromkeys(around[: around.index(root) + 1] if root in around else [root])
    return list(found) or [CGROUPS]


def _value_of(name: str, file: Path) -> float:
    """One value of a file with a name and a number a line; 0 where it is not there."""
    lines = (line.split() for line in (_text_of(file) or "").splitlines())
    return next((float(line[1]) for line in lines if len(line) == 2 and line[0] == name), 0.0)


def _number_in(file: Path) -> float | None:
    text = (_text_of(file) or "").strip()
    return float(text) if text.isdigit() else None


def _text_of(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None

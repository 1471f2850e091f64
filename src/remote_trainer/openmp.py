"""How long the threads of a computation wait for each other before they give up their core.

torch's OpenMP threads meet at a barrier many times a millisecond, and whoever comes first spins. By
default libgomp spins for some milliseconds: on a machine that does nothing else that is quick, and
beside another process the spinning threads take the cores from those they wait for, so that an
update took up to twenty times as long. ``benchmarks/busy_machine.py`` measured the counts
(docs/reliability.md shows the table).

OpenMP reads its variables once, when torch is loaded, so importing this package sets them.
"""

import sys
from collections.abc import Mapping, MutableMapping
from glob import glob

SETTINGS: Mapping[str, str] = {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}
"""Of GCC's OpenMP, turns of a loop (about 0.1 ms); of LLVM's and Intel's, milliseconds."""
OF_THE_USER = ("OMP_WAIT_POLICY", *SETTINGS)
"""If the user sets one of these, nothing is changed."""
GPUS = "/dev/nvidia[0-9]*"
HIDDEN = ("", "-1")
"""Values of CUDA_VISIBLE_DEVICES that leave no GPU to use."""


def limit_spinning(environment: MutableMapping[str, str]) -> bool:
    """Add `SETTINGS` to ``environment``, where they can take effect; whether that was done.

    Not over a value of the user's, not behind torch, which has read them by then, and not on a
    machine with a GPU, where the CPU's threads hardly compute. Child processes inherit them.
    """
    decided = any(name in environment for name in OF_THE_USER)
    if decided or "torch" in sys.modules or _uses_gpu(environment):
        return False
    environment.update(SETTINGS)
    return True


def describe_waiting(environment: Mapping[str, str]) -> str:
    """The current settings, as a sentence for ``doctor``."""
    found = [f"{name}={environment[name]}" for name in OF_THE_USER if name in environment]
    if not found:
        return "OpenMP threads use the wait policy of torch's own OpenMP"
    return f"OpenMP thread wait policy: {', '.join(found)}"


def _uses_gpu(environment: Mapping[str, str]) -> bool:
    """By the driver's device files: asking torch would load it."""
    return environment.get("CUDA_VISIBLE_DEVICES") not in HIDDEN and bool(glob(GPUS))

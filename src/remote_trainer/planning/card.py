"""Whether a run fits the card that is here: the estimate by part, and the share that vLLM takes.

Nothing of this was run on a GPU: refused is only what cannot fit by the sizes of weights or by
vLLM's own rules; where the estimate of the rest is over what is free, that is a warning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remote_trainer.errors import Problem
from remote_trainer.planning.memory import GIB

STANDBY_SHARES = ((40, 0.925), (25, 0.9), (20, 0.825), (14, 0.8), (10, 0.775), (0, 0.75))
"""(GiB of a card from which on, what Unsloth's standby lets vLLM have of it), before `HEADROOM`."""
HEADROOM = 0.95
"""Unsloth's factor for vLLM 0.11 and newer."""
TRL_SHARE = 0.3
"""TRL's default of vllm_gpu_memory_utilization."""
SHARE_KEY = "training.trl.vllm_gpu_memory_utilization"
STANDBY = "UNSLOTH_VLLM_STANDBY"
OVERRIDE = "UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE"


@dataclass(frozen=True)
class Card:
    """Memory of a GPU in bytes."""

    total: float
    free: float


def vllm_share(
    engine: str, trl: Mapping[str, Any], card: Card, environ: Mapping[str, str], plain: float
) -> float | None:
    """What vLLM reserves of the card; None where none runs on it. ``plain`` is Unsloth's share
    without standby."""
    if engine == "vllm":
        return float(trl.get("vllm_gpu_memory_utilization", TRL_SHARE))
    if engine != "unsloth":
        return None
    if environ.get(STANDBY, "1") == "0" or environ.get(OVERRIDE, "0") != "0":
        return plain
    return HEADROOM * next(share for gib, share in STANDBY_SHARES if card.total >= gib * GIB)


def misfits(memory: Mapping[str, Any], card: Card, share: float | None) -> list[Problem]:
    """What cannot fit, by `remote_trainer.planning.resources.gpu_memory`."""
    resident = memory["weights"] + memory["adapter"] + memory["context"]
    if resident > card.total:
        what = f"weights, adapter and CUDA take about {_gb(resident)}, and the GPU has "
        ways = "a smaller model" if memory["in_4bit"] else "model.load_in_4bit: true"
        text = f"{what}{_gb(card.total)}; write {ways}, a smaller lora.r or fewer target_modules"
        return [Problem("model.name", text)]
    if share is None:
        return []
    reserved = share * card.total
    own = memory["weights"]
    if memory["engine"] == "unsloth":
        # One copy of the weights, inside what vLLM reserves.
        left, where = card.free, OVERRIDE
        lower = "end other programs on the GPU, or set this variable to 1 (vLLM then gets 50 %)"
        higher = "write model.load_in_4bit: true or a smaller model"
    else:
        left, where = card.free - memory["weights"] - memory["context"], SHARE_KEY
        most = max(0, int(100 * left / card.total)) / 100
        lower = f"write at most {most:.2f}, or end other programs on the GPU"
        higher = f"write at least {min(1.0, own / card.total + 0.01):.2f}, or a smaller model"
    taken = f"vLLM would reserve {share:.0%} of the GPU, {_gb(reserved)}"
    if reserved > left:
        return [Problem(where, f"{taken}, and {_gb(max(0.0, left))} are left for it; {lower}")]
    if reserved < own:
        return [Problem(where, f"{taken}, and the weights alone take {_gb(own)}; {higher}")]
    return []


def tight(memory: Mapping[str, Any], card: Card) -> str | None:
    """Why a run may end without memory, and the three settings that help; None: it fits."""
    if memory["total"] <= card.free:
        return None
    largest = "sampling" if memory["sampling"] > memory["update"] else "update"
    could_be_4bit = not memory["in_4bit"] and memory["engine"] != "vllm"
    third = "model.load_in_4bit: true" if could_be_4bit else "training.per_device_train_batch_size"
    return (
        f"the run takes about {_gb(memory['total'])} of GPU memory by the estimate (beside the "
        f"weights, most for the {largest}), and {_gb(card.free)} of {_gb(card.total)} are free; "
        "what helps: a smaller training.max_completion_length, training.num_generations, or "
        f"{third}"
    )


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"

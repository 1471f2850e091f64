"""The processes that train one model together: which one this is, and how they agree.

torchrun, ``accelerate launch`` and Ray Train tell each process its place by environment variables.
Without them a run is one process, and everything here costs nothing. Every process must call
`gathered` and `shared` equally often and in the same order.
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

Value = TypeVar("Value")
PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: the first one alone evaluates, probes and writes."""
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def process_count() -> int:
    """Number of processes of the run."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def process_index() -> int:
    """Place of this process, from 0."""
    return int(os.environ["RANK"]) if process_count() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that logs, evaluates and writes."""
    return process_index() == 0


def join() -> None:
    """Connect the processes, if there are several, and give each its own GPU."""
    if process_count() == 1:
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def gathered(values: Sequence[Value]) -> list[Value]:
    """The values of all processes, in the order of the processes."""
    if process_count() == 1:
        return list(values)
    import torch

    parts: list[Any] = [None] * process_count()
    torch.distributed.all_gather_object(parts, list(values))
    return [value for part in parts for value in part]


def own_part(values: Sequence[Value]) -> list[Value]:
    """What this process gave to `gathered`, if each gave as many."""
    size = len(values) // process_count()
    return list(values[process_index() * size :][:size])


def shared(value: Value) -> Value:
    """The value of the main process, in all of them."""
    if process_count() == 1:
        return value
    import torch

    box: list[Any] = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    given: Value = box[0]
    return given

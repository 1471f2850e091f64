"""Which errors of a fast way are a reason to take a slower one."""

import torch

from remote_trainer.errors import EngineError, RemoteTrainerError

# What torch's allocators say on a CPU, where running out of memory has no class of its own.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def reason_to_give_up(error: Exception, doing: str = "it fails") -> str:
    """The sentence for people; raises ``error`` where a slower way would not help.

    Memory that is not there is wanted by the slower way, too, and what this program raises on
    purpose is meant for its caller, but for what it says of an engine.
    """
    if _is_no_fault_of_the_way(error):
        raise error
    return f"{doing}: {type(error).__name__}: {str(error)[:200]}"


def _is_no_fault_of_the_way(error: Exception) -> bool:
    if isinstance(error, EngineError):
        return False
    return isinstance(error, RemoteTrainerError) or is_out_of_memory(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator found no memory, on a GPU or on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)

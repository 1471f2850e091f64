"""Out of memory: fewer tokens go through the model at once, and the work is done again."""

import gc
import logging
import resource
from collections.abc import Callable
from typing import TypeVar

import torch

from remote_trainer.activity import ACTIVITY
from remote_trainer.errors import OutOfMemoryError
from remote_trainer.fallback import is_out_of_memory
from remote_trainer.models.hardware import free_in_container, resident_bytes

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_TOKENS, LEAST_TOKENS = 4096, 128
NEARLY_FULL = 0.95


class TokenBudget:
    """How many tokens go through the model in one forward pass. One for each loaded model."""

    def __init__(self) -> None:
        self.limit: int | None = None
        """None until memory was exhausted once: then passes have their usual sizes."""
        self.on_lower: Callable[[int], None] = lambda limit: None
        """Called with each new limit."""
        self._peak = 0.0

    def run(self, work: Callable[[int | None], T], at_most: int = MOST_TOKENS) -> T:
        """``work(limit)``, again with half the limit where memory does not suffice.

        ``work`` must be repeatable; ``at_most`` tokens is what it takes without a limit. On a CPU
        the kernel kills a process that exceeds the limit of its container, so the limit is also
        halved for the work to come where the last one came close to that.

        Raises OutOfMemoryError where fewer tokens do not help.
        """
        while True:
            try:
                done = work(self.limit)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                why = str(error)
            else:
                if self._container_is_nearly_full() and self._next(at_most) >= LEAST_TOKENS:
                    self._lower(at_most, "the memory of the container is nearly full")
                return done
            # Here, because the exception holds the frames, and with them tensors.
            self._lower(at_most, why)

    def _next(self, at_most: int) -> int:
        return min(self.limit or at_most, at_most, MOST_TOKENS) // 2

    def _lower(self, at_most: int, why: str) -> None:
        if self._next(at_most) < LEAST_TOKENS:
            raise OutOfMemoryError.with_advice(ACTIVITY.phase, why)
        self.limit = self._next(at_most)
        logger.warning(
            "out of memory in: %s (%s); from now on at most %d tokens go through the model at "
            "once, which is slower and changes results by rounding only",
            ACTIVITY.phase,
            why[:200],
            self.limit,
        )
        gc.collect()
        torch.cuda.empty_cache()
        self.on_lower(self.limit)

    def _container_is_nearly_full(self) -> bool:
        """Whether this process needed more than ever, and nearly all that it can have."""
        free = free_in_container()
        if free is None or torch.cuda.is_available():
            return False
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
        grown, self._peak = peak > self._peak, max(peak, self._peak)
        return grown and peak > NEARLY_FULL * (resident_bytes() + free)

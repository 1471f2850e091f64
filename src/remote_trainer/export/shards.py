"""Progress of writing the shards of a large model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_WRITING = "Writing model shards"


@contextmanager
def shard_progress(on_progress: Callable[[int, int], None]) -> Iterator[None]:
    """Inside the block, transformers' progress bar over shards becomes calls with (done, total).

    A model with a single shard reports nothing.
    """
    from transformers.utils import logging

    def hook(make: Any, args: Any, kwargs: Any) -> Any:
        if kwargs.get("desc") == _WRITING and len(args[0]) > 1:
            return _counted(args[0], on_progress)
        return make(*args, **kwargs)

    before = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def _counted(parts: Any, on_progress: Callable[[int, int], None]) -> Iterator[Any]:
    for done, part in enumerate(parts):
        on_progress(done, len(parts))
        yield part
    on_progress(len(parts), len(parts))

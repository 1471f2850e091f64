"""Order of the prompts, which is the same in a resumed run as in an uninterrupted one."""

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from trl.trainer.utils import RepeatSampler


class EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's order of prompts, with a permutation that depends on seed and epoch alone."""

    def __init__(self, *args: Any, seed: int, epoch: Callable[[], int], **kwargs: Any) -> None:
        super().__init__(*args, seed=seed, **kwargs)
        self._epoch = epoch

    def __iter__(self) -> Any:
        self.generator.manual_seed(self.seed * 1_000_003 + self._epoch())
        return super().__iter__()


def numbered_rows(count: int) -> Dataset:
    """TRL's dataset: only row numbers, because rows stay in their files. TRL requires a column of
    prompts, which are filled in for the rows of one batch."""
    return Dataset.from_dict({"prompt": [""] * count, "row": range(count)})

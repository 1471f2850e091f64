"""Runs of the tiny model that are disturbed, and the numbers of those that are not."""

from pathlib import Path
from typing import Any

import pytest
from tiny_run import New, TinyRun, undisturbed


@pytest.fixture(scope="module")
def new(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> New:
    """A new run; all share the answers before training, unless told otherwise."""
    cache = tmp_path_factory.mktemp("cache")

    def _new(root: Path, **settings: Any) -> TinyRun:
        return TinyRun(root, llama_folder, settings.pop("cache", cache), **settings)

    return _new


@pytest.fixture(scope="module")
def whole(new: New, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The numbers of a run that nothing disturbed."""
    return undisturbed(new(tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def whole_shared(new: New, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same, of a run whose completions serve two updates each."""
    return undisturbed(new(tmp_path_factory.mktemp("shared"), changes={"num_iterations": 2}))

"""Four architectures of docs/models.md, trained as the script trains all of them."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> Any:
    """scripts/architectures.py as a module."""
    spec = importlib.util.spec_from_file_location(
        "architectures", ROOT / "scripts/architectures.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["architectures"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "opt", "phi3", "gemma2"])
def test_it_trains_resumes_exports_and_agrees_with_transformers(
    name: str, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path / "cache"))
    outcome = script.look_at(name, tmp_path, with_gguf=False)
    assert outcome.faults() == []
    assert set(outcome.gaps) == {"scoring", "training", "sampling"}


def test_the_page_has_a_line_for_each_and_none_that_failed(script: Any) -> None:
    page = script.PAGE.read_text(encoding="utf-8")
    table = page.partition(script.BEGIN)[2].partition(script.END)[0]
    lines = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert [line[0].removeprefix("| ") for line in lines] == list(script.ARCHITECTURES)
    for line in lines:
        cells = dict(zip(script.COLUMNS, line, strict=True))
        assert cells["updates"] == str(script.UPDATES)
        assert float(cells["log-probs, largest gap"]) <= script.LIMIT_NATS
        assert (cells["resume"], cells["merged_16bit"]) == ("bit-equal", "PASS")
        assert cells["GGUF"] in ("PASS", "INCONCLUSIVE", "not known to llama.cpp")

"""The lines of docs/exports.md that serve an export with vLLM, against its argument parser."""

import re
import shlex
from pathlib import Path

import pytest
from vendor import Vendor

PAGE = Path(__file__).parents[2] / "docs" / "exports.md"
ENGINE, SERVER = "vllm/engine/arg_utils.py", "vllm/entrypoints/launchers/cli_args.py"
LINES = re.findall(r"^vllm serve .*$", PAGE.read_text(encoding="utf-8"), re.M)


def unknown(line: str, vendor: Vendor) -> list[str]:
    """Options of a line that vLLM's parser does not have: it writes those of the engine as
    ``--name`` and makes those of the server from the fields of a class."""
    fields = re.findall(r"^    (\w+):", vendor.text(SERVER), re.M)
    known = {f"--{name.replace('_', '-')}" for name in fields}
    known |= set(re.findall(r'"(--[a-z0-9-]+)"', vendor.text(ENGINE)))
    return [word for word in shlex.split(line) if word.startswith("--") and word not in known]


def test_there_are_lines() -> None:
    assert len(LINES) == 2


@pytest.mark.parametrize("line", LINES)
def test_vllm_has_the_options(line: str) -> None:
    assert unknown(line, Vendor()) == []


def test_the_model_is_given_by_its_place() -> None:
    assert '"model_tag"' in Vendor().text(SERVER)
    assert all(not line.split()[2].startswith("-") for line in LINES)


def test_an_option_that_vllm_drops_would_be_noticed() -> None:
    vendor = Vendor().changed(ENGINE, '"--max-lora-rank"', '"--other"')
    assert [each for line in LINES for each in unknown(line, vendor)] == ["--max-lora-rank"]

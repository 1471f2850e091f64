"""Docs that are made from code agree with it; the others name only what exists."""

import re
from pathlib import Path

import pytest
import yaml
from guard_levels import fired, recorded_runs

from remote_trainer.config import parse_config
from remote_trainer.docs_pages.config_page import config_reference
from remote_trainer.docs_pages.guard_page import default_config, guard_reference
from remote_trainer.docs_pages.reward_pages import rewards_reference
from remote_trainer.docs_pages.run_folder_page import run_folder_reference
from remote_trainer.guard import ALARMS

ROOT = Path(__file__).parents[3]
FIRST_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = [*FIRST_PAGES, *sorted((ROOT / "docs").rglob("*.md"))]


def test_config_reference_is_up_to_date() -> None:
    written = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert written == config_reference(), "run `make docs`"


def test_rewards_reference_is_up_to_date() -> None:
    written = (ROOT / "docs/rewards.md").read_text(encoding="utf-8")
    assert written == rewards_reference(), "run `make docs`"


def test_run_folder_reference_is_up_to_date() -> None:
    written = (ROOT / "docs/run_folder.md").read_text(encoding="utf-8")
    assert written == run_folder_reference(), "run `make docs`"


def test_the_guards_tables_are_up_to_date() -> None:
    written = (ROOT / "docs/guard.md").read_text(encoding="utf-8")
    assert written == guard_reference(written, fired(recorded_runs())), "run `make docs`"
    assert all(written.count(f"\n| {name} | ") >= 2 for name in ALARMS)  # a row in each table


def test_the_default_config_has_the_guards_levels() -> None:
    written = (ROOT / "configs/default.yaml").read_text(encoding="utf-8")
    assert written == default_config(written), "run `make docs`"
    assert all(f"    {name}: {{warn: " in written for name in ALARMS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = {
        path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py")
    }
    for named in re.findall(r"`(?:[\w/]+/)?(test_\w+\.py[^`\[]*)", text):
        name, _, function = named.partition("::")
        assert name in files, f"{page.name}: {name}"
        assert not function or f"def {function}(" in files[name], f"{page.name}: {name}::{function}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_examples_load(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        parse_config(block, page.name)
        assert isinstance(yaml.safe_load(block), dict)

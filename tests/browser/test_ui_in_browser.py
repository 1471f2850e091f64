"""The local page over run folders in a real browser, while runs are written."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from browser_page import TAB, Page
from shown_runs import add_update, begin_run, finish_run, hostile_run

from remote_trainer.ui.server import RunsServer

pytest_plugins = ["chromium"]

PHONE = 390
SCROLLS = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"


def test_a_run_appears_and_its_charts_grow(server: RunsServer, page: Page) -> None:
    page.open(server.url)
    assert "No runs yet." in page.text
    run = begin_run(server.root / "alpha", 2)
    page.wait(lambda: "alpha" in page.text)
    page.driver.find_element("link text", "alpha").click()
    assert page.wait_for_charts()[0] == 2 + 1
    for step in (3, 4, 5):
        add_update(run, step, ("Lyon",))
    page.wait(lambda: page.wait_for_charts()[0] == 5 + 1)
    page.wait(lambda: "update 5" in page.text and "Lyon" in page.text)
    finish_run(run)
    page.wait(lambda: "finished" in page.text and "Better: by 20 points." in page.text)
    page.driver.find_element("link text", "Report").click()
    assert page.wait_for_charts()[0] == 5 + 1
    page.driver.refresh()
    assert "Better: by 20 points." in page.text


def test_runs_are_chosen_by_keyboard_and_compared(server: RunsServer, page: Page) -> None:
    for name in ("alpha", "beta", "gamma"):
        finish_run(begin_run(server.root / name, 3))
    page.open(server.url)
    reached = []
    for _ in range(10):
        page.press(TAB)
        tag, _, name = page.focused()
        reached.append(name)
        if tag == "INPUT" and "beta" not in name:
            page.press(" ")
    assert [name for name in reached if name.startswith("Compare ")] == [
        "Compare alpha", "Compare beta", "Compare gamma",
    ]  # fmt: skip
    # A refresh of the list keeps what was chosen, and the focus.
    page.ask("document.querySelector('[value=beta]').focus()")
    add_update(begin_run(server.root / "delta"), 1)
    page.wait(lambda: "delta" in page.text)
    assert page.focused()[2] == "Compare beta"
    page.all("form button")[0].click()
    page.wait(lambda: page.all("#comparison thead th"))
    assert [each.text for each in page.all("#comparison thead th")] == ["alpha", "gamma"]
    page.wait_for_charts()


def test_a_real_run_is_followed_to_its_end(
    server: RunsServer, page: Page, llama_folder: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": f"What is {i} + {i}?", "answer": f"{2 * i}"} for i in range(12)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = {
        "model": {"name": str(llama_folder), "max_seq_length": 256},
        "data": {"train": str(data), "eval": str(data)},
        "reward": {"type": "supervised"},
        "training": {
            "num_generations": 4, "gradient_accumulation_steps": 1, "max_steps": 6,
            "max_prompt_length": 64, "max_completion_length": 6, "group_filter": {"min_std": 0},
        },
        "evaluation": {"samples": 2},
        "guard": {"action": "off"},
        "output_dir": str(server.root / "real"),
    }  # fmt: skip
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps(settings))
    page.open(server.url)
    command = [sys.executable, "-m", "remote_trainer.cli", "train", str(config), "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as training:
        try:
            page.wait(lambda: page.all("a[href='/run/real']"))
            page.open(f"{server.url}run/real")
            page.wait(lambda: "running" in page.text or training.poll() is not None)
            assert training.wait(100) == 0, training.stdout and training.stdout.read()
        finally:
            training.kill()
    page.wait(lambda: "finished, update 6" in page.text)
    assert page.wait_for_charts()[0] >= 6
    page.open(f"{server.url}report/real")
    page.wait_for_charts()
    assert "Evaluation before and after" in page.text


def test_a_hostile_run_is_inert(server: RunsServer, page: Page) -> None:
    name = "x'\"<img src=x onerror=alert(3)>"
    hostile_run(server.root / name)
    page.open(server.url)
    page.driver.find_element("link text", name).click()
    page.wait_for_charts()
    assert name in page.text
    assert page.ask("return document.querySelectorAll('img, [onerror], [onload]').length") == 0
    assert page.ask("return [...document.scripts].every((each) => each.src)")


@pytest.mark.parametrize("dark", [False, True])
def test_both_pages_on_a_phone_and_for_axe(
    server: RunsServer, page: Page, axe: str, dark: bool
) -> None:
    finish_run(begin_run(server.root / "alpha", 5))
    begin_run(server.root / "a-run-with-a-rather-long-name-that-has-no-space", 5)
    for width in (PHONE, 1280):
        page.look(width, dark)
        page.open(server.url)
        assert not page.ask(SCROLLS)
        page.picture(f"ui-{width}-{'dark' if dark else 'light'}")
        page.open(f"{server.url}run/alpha")
        page.wait_for_charts()
        page.picture(f"ui-run-{width}-{'dark' if dark else 'light'}")
        assert not page.ask(SCROLLS)
    for address in ("", "run/alpha"):
        page.open(server.url + address)
        assert page.serious_violations(axe) == []

"""A headless Chromium. Without it or without selenium, tests are skipped by name; `make
test-browser` installs what it can."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_page import Page

from remote_trainer.ui import answers
from remote_trainer.ui.server import RunsServer

AXE = Path(__file__).parents[2] / ".cache" / "browser" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests: a start takes a second."""
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, path in programs.items():
        if path is None:
            pytest.skip(f"no {name} on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_argument("--headless=new")
    options.add_argument("--disable-dev-shm-usage")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to run as root with it
    service = webdriver.ChromeService(executable_path=programs["chromedriver"])
    with webdriver.Chrome(options=options, service=service) as driver:
        yield driver


@pytest.fixture
def page(chromium: Any) -> Iterator[Page]:
    """An empty page of a desktop's width; afterwards its console must hold no error."""
    made = Page(chromium)
    made.look(width=1280, dark=False)
    made.errors()
    yield made
    seen = made.errors()
    made.open("about:blank")  # pages of the ui ask again and again
    assert seen == []


@pytest.fixture(scope="session")
def axe() -> str:
    """Source of axe-core."""
    if not AXE.exists():
        pytest.skip("no axe-core: npm could not fetch it (make test-browser)")
    return AXE.read_text(encoding="utf-8")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunsServer]:
    """It serves ``runs`` in the temporary folder, which is empty; its pages ask often."""
    (tmp_path / "runs").mkdir()
    script = answers._file("page.js")
    assert "POLL_MS = 3000" in script
    monkeypatch.setattr(
        answers,
        "_file",
        lambda name: script.replace("POLL_MS = 3000", "POLL_MS = 500"),
    )
    answers._static.cache_clear()
    answers._static("page.js")
    monkeypatch.undo()
    with RunsServer(tmp_path / "runs", 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()

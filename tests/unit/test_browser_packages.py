"""What the installation for the browser tests does where something is missing."""

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/browser_packages.py"


@pytest.fixture
def script() -> Any:
    spec = importlib.util.spec_from_file_location("browser_packages", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_root_chromium_is_only_named(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    found = script.install_chromium()
    assert found == "chromium and chromedriver missing; only root can install them with apt"
    monkeypatch.setattr(script, "CACHE", tmp_path)
    assert script.install_axe() == "axe-core is fetched by npm, which is missing"


def test_nothing_is_installed_twice(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **more: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", never)
    assert script.install_chromium() is None


def test_a_failure_is_a_sentence(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = "sh"
    monkeypatch.setitem(script.SECONDS, shell, 0.2)
    assert script.succeed((shell, "-c", "true")) is None
    failed = script.succeed((shell, "-c", "echo first >&2; echo no such thing >&2; exit 3"))
    assert failed == "sh: no such thing"
    assert script.succeed((shell, "-c", "sleep 5")) == "sh did not answer within 0.2 s"

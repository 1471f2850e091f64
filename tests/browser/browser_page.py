"""What tests do with a page in the browser, and ask of it."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEADLINE = 30.0
TAB, RIGHT = "\ue004", "\ue014"  # WebDriver's codes of keys

_DRAWN = """
const given = [...document.querySelectorAll(".charts > script")];
const figures = document.querySelectorAll("figure").length;
if (figures < given.reduce((sum, each) => sum + JSON.parse(each.textContent).length, 0)) return [];
return [...document.querySelectorAll(".plot")].map((plot) =>
  plot.querySelectorAll(".scatterlayer path.js-line, .scatterlayer path.point").length);
"""
_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then((found) => done(found.violations
  .filter((each) => ["serious", "critical"].includes(each.impact))
  .map((each) => `${each.id}: ${each.nodes.map((node) => node.target).join(", ")}`)));
"""
_FOCUSED = """
const at = document.activeElement;
return [at.tagName, at.className, at.dataset.by ?? at.getAttribute("aria-label") ?? at.textContent];
"""


class Page:
    """One tab."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self._cdp("Performance.enable", timeDomain="threadTicks")

    def open(self, address: str | Path) -> None:
        """A file or an address."""
        self.driver.get(address.as_uri() if isinstance(address, Path) else address)

    def look(self, width: int, dark: bool) -> None:
        """Size of the window in CSS pixels, and the colours that the user prefers."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._cdp("Emulation.setEmulatedMedia", features=[scheme])

    def ask(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, what: Callable[[], Any]) -> Any:
        """Until it is true; returns it."""
        until = time.monotonic() + DEADLINE
        while not (found := what()):
            assert time.monotonic() < until, (
                f"not within {DEADLINE:g} s; the page says: {self.text}"
            )
            time.sleep(0.05)
        return found

    def wait_for_charts(self, least: int = 1) -> list[int]:
        """Number of drawn points and lines of each chart, when all charts have some."""

        def drawn() -> list[int]:
            counts: list[int] = self.ask(_DRAWN)
            return counts if len(counts) >= least and all(counts) else []

        counts: list[int] = self.wait(drawn)
        return counts

    @property
    def text(self) -> str:
        """What a reader sees."""
        return str(self.ask("return document.body.innerText"))

    def all(self, selector: str) -> list[Any]:
        """Elements."""
        return list(self.driver.find_elements("css selector", selector))

    def press(self, *keys: str) -> None:
        """Keys, to whatever has the focus."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def focused(self) -> tuple[str, str, str]:
        """Tag, classes and name of what has the focus."""
        tag, classes, name = self.ask(_FOCUSED)
        return tag, classes, name

    def serious_violations(self, axe: str) -> list[str]:
        """Serious and critical ones that axe-core finds."""
        self.ask(axe)
        return list(self.driver.execute_async_script(_AXE))

    def errors(self) -> list[str]:
        """Messages in the console since the last call."""
        seen = self.driver.get_log("browser")
        return [each["message"] for each in seen if each["level"] in ("SEVERE", "WARNING")]

    def seconds_busy(self) -> float:
        """Processor time of the page's main thread since it was opened: what opening it takes on a
        machine that does nothing else."""
        measured = self._cdp("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in measured if each["name"] == "TaskDuration"))

    def picture(self, name: str) -> None:
        """Save a picture of the window in the folder that is asked for, if one is."""
        if folder := os.environ.get("REMOTE_TRAINER_SCREENS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    def _cdp(self, command: str, **values: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, values)

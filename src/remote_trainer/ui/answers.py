"""The addresses of the local page and the answer to each. No state: every answer is read anew."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from jinja2 import Environment, FunctionLoader, StrictUndefined

from remote_trainer.report import render_report
from remote_trainer.report.numbers import number
from remote_trainer.report.page import page_part, plotly_script
from remote_trainer.report.samples import newest_step, prompt_text
from remote_trainer.report.texts import shown
from remote_trainer.run_dir import RunDir
from remote_trainer.ui.runs import charts_of, find_runs, summary_of

HTML, JSON = "text/html; charset=utf-8", "application/json"
_STATIC = {
    "style.css": "text/css; charset=utf-8",
    "ui.css": "text/css; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "plotly.js": "text/javascript; charset=utf-8",
}
_OF_REPORT = ("style.css", "charts.js")
# plotly.js adds style elements, and compiles functions for some charts.
_OWN_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; img-src data: blob:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
# A report has its scripts inside. The sandbox keeps it away from the other pages.
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Answer:
    """The response to a request."""

    body: bytes
    kind: str = HTML
    """Value of Content-Type."""
    status: int = 200
    policy: str = _OWN_POLICY
    """Value of Content-Security-Policy."""


def answer_to(address: str, root: Path) -> Answer:
    """The answer to a path with query; ``root`` is the folder of the runs.

    Runs are only found by their name in the list, so an address cannot name another path.
    """
    parts = urlsplit(address)
    match [unquote(part) for part in parts.path.split("/")[1:]]:
        case [""]:
            return _index(root)
        case ["static", name] if name in _STATIC:
            return Answer(_static(name), _STATIC[name])
        case ["compare"]:
            return _comparison(root, parse_qs(parts.query).get("run", []))
        case [kind, name] if kind in _PAGES and name in (runs := find_runs(root)):
            return _about_run(kind, name, runs[name])
    return error_page(404, "There is no such page or run.")


def error_page(status: int, text: str) -> Answer:
    """A page that only says what is wrong."""
    return Answer(_page("error.html.j2", title="Error", text=text), status=status)


_PAGES = ("run", "charts", "report")


def _index(root: Path) -> Answer:
    runs = [summary_of(name, run) for name, run in find_runs(root).items()]
    return Answer(_page("index.html.j2", title="Runs", root=root, runs=runs))


def _about_run(kind: str, name: str, run: RunDir) -> Answer:
    """Raises what damaged files of a run raise."""
    if kind == "charts":
        body = json.dumps(charts_of(run), allow_nan=False, ensure_ascii=False)
        return Answer(body.encode("utf-8", "replace"), JSON)
    if kind == "report":
        return _report([run])
    page = _page(
        "run.html.j2",
        title=name,
        run=summary_of(name, run),
        newest=newest_step(run.completions),
    )
    return Answer(page)


def _comparison(root: Path, names: list[str]) -> Answer:
    runs = find_runs(root)
    chosen = [runs[name] for name in dict.fromkeys(names) if name in runs]
    if len(chosen) < 2:
        return error_page(400, "Choose at least two runs in the list.")
    return _report(chosen)


def _report(runs: list[RunDir]) -> Answer:
    return Answer(render_report(runs), policy=_REPORT_POLICY)


@cache
def _static(name: str) -> bytes:
    if name == "plotly.js":
        return plotly_script()
    return (page_part(name) if name in _OF_REPORT else _file(name)).encode()


def _file(name: str) -> str:
    return files("remote_trainer.ui").joinpath("pages", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(_file),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "prompt_text": prompt_text,
        "quoted": lambda text: quote(text, safe=""),
        "shown": shown,
    }
    return made


def _page(template: str, **values: object) -> bytes:
    page = _environment().get_template(template).render(values)
    return page.encode("utf-8", "replace")

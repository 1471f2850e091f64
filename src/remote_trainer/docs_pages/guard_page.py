"""What is made from the alarms: the tables of docs/guard.md and the levels of configs/default.yaml.

Both files are written by hand around that.
"""

import re
from collections.abc import Mapping

from jinja2 import Environment, StrictUndefined

from remote_trainer.guard import ALARMS, Alarm

_TABLES = {
    "alarms": """
| alarm | measured as | unit | warns at | stops at |
| --- | --- | --- | --- | --- |
{% for name, alarm in alarms.items() %}
| {{ name }} | {{ alarm.signal.measured }} | {{ alarm.unit }} \
| {{ alarm.levels.warn | at(alarm.worse) }} | {{ alarm.levels.stop | at(alarm.worse) }} |
{% endfor %}
""",
    "runs": """
| alarm | good | bad | evidence |
| --- | --- | --- | --- |
{% for name, alarm in alarms.items() %}
| {{ name }} | {{ fired[name].good }} | {{ fired[name].bad }} | {{ alarm.evidence }} |
{% endfor %}
""",
}
_TABLE = re.compile(r"(<!-- by `make docs`: (\w+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
_LEVELS = re.compile(r"(?<=^  levels:)(.*\n)(?:    .*\n)+", re.MULTILINE)
_COMMENT_COLUMN = 57


def guard_reference(page: str, fired: Mapping[str, Mapping[str, str]]) -> str:
    """docs/guard.md with its tables made anew, each between two comments.

    ``fired`` says of each alarm in how many ``good`` and ``bad`` recorded runs it warned and
    stopped.
    """
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["at"] = _at

    def table(found: re.Match[str]) -> str:
        template = environment.from_string(_TABLES[found[2]])
        return found[1] + template.render(alarms=ALARMS, fired=fired) + found[3]

    return _TABLE.sub(table, page)


def default_config(config: str) -> str:
    """configs/default.yaml with the levels of the guard made anew."""
    lines = "".join(_level_line(name, alarm) for name, alarm in ALARMS.items())
    return _LEVELS.sub(lambda found: found[1] + lines, config)


def _at(level: float | None, worse: str) -> str:
    if level is None:
        return "never"
    return f"{level:g} or {'more' if worse == 'higher' else 'less'}"


def _level_line(name: str, alarm: Alarm) -> str:
    levels = (alarm.levels.warn, alarm.levels.stop)
    warn, stop = ("null" if level is None else f"{level:g}" for level in levels)
    worse = "" if alarm.worse == "higher" else "; lower is worse"
    setting = f"    {name}: {{warn: {warn}, stop: {stop}}}"
    return f"{setting:<{_COMMENT_COLUMN}}# {alarm.unit}{worse}\n"

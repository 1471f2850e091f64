"""docs/run_folder.md out of the entries of metrics and exports."""

from collections.abc import Iterable, Mapping

from remote_trainer.docs_pages.reward_pages import markdown_table
from remote_trainer.export_formats import EXPORT_FORMATS, ExportFormat
from remote_trainer.metrics import (
    EVALUATION_METRICS,
    METRICS,
    EvaluationMetric,
    LoggedMetric,
    Metric,
)

_HEAD = """# The run folder

Made from the code by `make docs`. This page says what the numbers of a run mean and which exports
there are.
"""

_WINDOW = {"mean": "mean", "last": "the last one", "sum": "sum", "list": "those of the last one"}


def run_folder_reference() -> str:
    """The whole page as Markdown."""
    parts = [_HEAD, _metrics(METRICS), _evaluation(EVALUATION_METRICS), _exports(EXPORT_FORMATS)]
    return "\n".join(parts)


def _metrics(metrics: Mapping[str, LoggedMetric]) -> str:
    rows = [(*_told(metric), _WINDOW[metric.window]) for metric in metrics.values()]
    table = markdown_table(("key", "title", "unit", "meaning", "several updates"), rows)
    listed = _named(key for key, metric in metrics.items() if metric.of is not None)
    return f"""## metrics.jsonl

One line of JSON for each `training.logging_steps` updates (default 1). A line that stands for
several updates holds what the last column says. A mean leaves out nulls.

{table}
A number that is not known is null, never 0. An update that learns again from the completions of the
one before (`training.num_iterations` over 1) has null in these keys:

{listed}
"""


def _evaluation(metrics: Mapping[str, EvaluationMetric]) -> str:
    table = markdown_table(("key", "title", "unit", "meaning"), map(_told, metrics.values()))
    each = _named(metric.key for metric in metrics.values() if metric.per_row)
    return f"""## eval.json

These numbers of the held-out rows stand under `before` and `after` training.

{table}
Under `ci95` there are 95 % intervals for {each}.
"""


def _exports(formats: Mapping[str, ExportFormat]) -> str:
    rows = [
        (
            f"`{name}`",
            f"`{each.folder}/`",
            each.written,
            each.needs,
            str(each.room),
            str(each.memory),
            each.proven,
        )
        for name, each in formats.items()
    ]
    head = ("format", "folder", "what is written", "needs", "room", "memory", "read again by")
    others = _named(name for name, each in formats.items() if not each.in_config)
    return f"""## Exports

{markdown_table(head, rows)}
Room is the free disk space that writing takes at most, memory what writing and reading take; 1 is
the size of the base model in 16 bits, and 0 no more than training takes.
`<type>` is `export.gguf_type`. A config cannot ask for {others}:
`remote-trainer export RUN_DIR --format lora --gguf-type TYPE` writes it. More about exports and
their proof: [exports.md](exports.md).
"""


def _told(metric: Metric) -> tuple[str, str, str, str]:
    return f"`{metric.key}`", metric.title, metric.unit, metric.explained


def _named(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)

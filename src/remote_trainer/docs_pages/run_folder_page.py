"""Generates docs/run_folder.md from the entries of metrics and exports."""

from collections.abc import Iterable, Mapping

from remote_trainer.docs_pages.reward_pages import markdown_table
from remote_trainer.export_formats import EXPORT_FORMATS, PROOF_KEYS, ExportFormat
from remote_trainer.guard import GUARD_KEYS
from remote_trainer.metrics import (
    ANSWER_KEYS,
    EVALUATION_METRICS,
    METRICS,
    EvaluationMetric,
    LoggedMetric,
    Metric,
)
from remote_trainer.supervision.heartbeat import HEARTBEAT_KEYS

_HEAD = """# The run folder

Generated from the code by `make docs`. This page lists the keys of a run's JSON files and the
export formats.
"""

_STACKS = """## stacks.txt

Exists only if an update took longer than 10 minutes and 20 times the median: the phase and the
stacks of all threads at that moment.
"""

_TRACKING = """## tracking/

Exists only with `tracking.report_to`: the tracker's output (`<name>.log`), its id and the last
update that it got (`<name>.json`), and the files of wandb or TensorBoard. See
[trackers.md](trackers.md).
"""

_WINDOW = {"mean": "mean", "last": "last value", "sum": "sum", "list": "those of the last update"}


def run_folder_reference() -> str:
    """The whole page as Markdown."""
    parts = [
        _HEAD,
        _metrics(METRICS),
        _evaluation(EVALUATION_METRICS),
        _keys(
            "answers.jsonl",
            "One line of JSON for each held-out row: what the model answered before and after "
            "training.",
            ANSWER_KEYS,
        ),
        _keys("guard.json", "What the guard saw. [guard.md](guard.md) explains it.", GUARD_KEYS),
        _keys(
            "proof.json", "How an export was verified; see [exports.md](exports.md).", PROOF_KEYS
        ),
        _keys(
            "heartbeat.json",
            "What a training run is doing, written when the phase changes (at most every 2 s, at "
            "least every 10 s).",
            HEARTBEAT_KEYS,
        ),
        _STACKS,
        _TRACKING,
        _exports(EXPORT_FORMATS),
    ]
    return "\n".join(parts)


def _metrics(metrics: Mapping[str, LoggedMetric]) -> str:
    rows = [(*_columns(metric), _WINDOW[metric.window]) for metric in metrics.values()]
    table = markdown_table(("key", "title", "unit", "meaning", "several updates"), rows)
    listed = _named(key for key, metric in metrics.items() if metric.of is not None)
    return f"""## metrics.jsonl

One line of JSON for each `training.logging_steps` updates (default 1). The last column says what a
line holds that stands for several updates. A mean leaves out nulls.

{table}
A number that is not known is null, never 0. An update that reuses the completions of the previous
one (`training.num_iterations` over 1) has null in these keys:

{listed}
"""


def _evaluation(metrics: Mapping[str, EvaluationMetric]) -> str:
    table = markdown_table(("key", "title", "unit", "meaning"), map(_columns, metrics.values()))
    each = _named(metric.key for metric in metrics.values() if metric.of_row is not None)
    return f"""## eval.json

These numbers of the held-out rows are under `before` and `after` (training).

{table}
`ci95` contains 95 % intervals for {each}.
"""


def _keys(file: str, text: str, keys: Mapping[str, str]) -> str:
    rows = [(f"`{key}`", meaning) for key, meaning in keys.items()]
    return f"""## {file}

{text}

{markdown_table(("key", "meaning"), rows)}"""


def _exports(formats: Mapping[str, ExportFormat]) -> str:
    rows = [
        (
            f"`{name}`",
            f"`{each.folder}/`",
            each.written,
            each.needs,
            str(each.disk_factor),
            str(each.memory_factor),
            each.proven,
        )
        for name, each in formats.items()
    ]
    head = ("format", "folder", "content", "needs", "disk space", "memory", "verified with")
    others = _named(name for name, each in formats.items() if not each.in_config)
    return f"""## Exports

{markdown_table(head, rows)}
Disk space is the maximum while writing, memory the maximum while writing and verifying, each as a
multiple of the base model in 16 bits; memory 0 means no more than training needs. `<type>` is
`export.gguf_type`. {others} is not a value of `export.formats`:
`remote-trainer export RUN_DIR --format lora --gguf-type TYPE` writes it. See
[exports.md](exports.md) for the verification.
"""


def _columns(metric: Metric) -> tuple[str, str, str, str]:
    return f"`{metric.key}`", metric.title, metric.unit, metric.explained


def _named(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)

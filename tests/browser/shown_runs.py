"""Run folders as a run writes them, line by line, with numbers that are easy to recognise."""

from pathlib import Path
from typing import Any

from remote_trainer.metrics import in_rows
from remote_trainer.run_dir import RunDir, append_jsonl, write_json, write_text

HOSTILE = (
    "</script><script>alert('x')</script>",
    "<img src=x onerror=alert(1)><svg onload=alert(2)>",
    "x" * 20_000,
    "word " * 5_000,
    "\u202eright to left \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "NUL \x00 and \x1b[31m escapes",
    "\N{PILE OF POO}\N{FAMILY}\N{ZERO WIDTH JOINER}" * 50,
    "<!-- {{ 7 * 7 }} ]]> --> &lt;b&gt;",
    "",
)
EXTRA = {
    "entropy": 1.1, "completion_tokens_mean": 11.0, "clipped_share": 0.03, "distinct_3": 0.8,
    "duplicate_share": 0.01, "loop_share": 0.0, "short_share": 0.0, "seconds_generate": 1.0,
    "seconds_score": 0.5, "seconds_update": 2.0, "seconds_step": 4.0,
}  # fmt: skip


def begin_run(root: Path, updates: int = 0) -> RunDir:
    """A run that has logged ``updates`` updates and goes on."""
    folder = RunDir(root)
    folder.root.mkdir(parents=True)
    write_text(folder.resolved_config, "model:\n  name: tiny\n")
    write_json(folder.environment, {"torch": "2.13.0", "device": "cpu"})
    for step in range(1, updates + 1):
        add_update(folder, step)
    return folder


def add_update(folder: RunDir, step: int, texts: tuple[str, ...] = ("Paris", "Rome")) -> None:
    """An update whose rewards grow with the step."""
    empty = dict.fromkeys(metric.key for metric in in_rows())
    for place, text in enumerate(texts):
        reward = step / 100 + place / 10
        row = {"step": step, "prompt": f"Question {step}?", "completion": text, "answer": "Paris"}
        more = {"reward": reward, "rewards": {"near": reward}, "tokens": 3, "ended": place == 0}
        append_jsonl(folder.completions_file(step), {**row, **more})
    values = {"reward": step / 100, "kl": step / 50, **EXTRA}
    append_jsonl(folder.metrics, {**empty, "step": step, **values})


def finish_run(folder: RunDir, text: str = "Better: by 20 points.") -> RunDir:
    """Evaluation, answers, guard and adapter of a finished run."""
    sides = {"before": _measured(0.3), "after": _measured(0.5)}
    verdict = {"word": "better", "metric": "accuracy_sampled", "change": 0.2, "ci95": [0.1, 0.3]}
    write_json(folder.eval, {**sides, "rows": 40, "verdict": {**verdict, "text": text}})
    wrong = {"greedy": {"text": "Rome", "right": False}, "sampled": [{"right": False}]}
    right = {"greedy": {"text": "Paris", "right": True}, "sampled": [{"right": True}]}
    row = {"prompt": "Capital?", "references": ["Paris"], "before": wrong, "after": right}
    append_jsonl(folder.answers, row)
    quiet = {"action": "stop", "stopped": False, "text": None, "findings": [], "probes": []}
    write_json(folder.guard, quiet)
    folder.adapter.mkdir()
    write_text(folder.report, "old")
    return folder


def hostile_run(root: Path) -> RunDir:
    """Every text that a model, a data file or a user gives is hostile."""
    folder = RunDir(root)
    begin_run(root)
    write_text(folder.resolved_config, "\n".join(HOSTILE))
    write_json(folder.environment, {HOSTILE[0]: HOSTILE[1]})
    for step in range(1, 8):
        add_update(folder, step, HOSTILE)
    logged = {"step": 8, "reward": 0.5, "rewards": {HOSTILE[0]: 1.0}, "logged": {HOSTILE[1]: 2.0}}
    append_jsonl(folder.metrics, logged)
    talk = [{"role": HOSTILE[1], "content": text} for text in HOSTILE]
    row = {"step": 8, "prompt": talk, "completion": HOSTILE[0], "answer": list(HOSTILE)}
    more = {"reward": 0.5, "rewards": {HOSTILE[0]: 0.25, HOSTILE[1]: None}, "tokens": 3}
    append_jsonl(folder.completions_file(8), {**row, **more, "ended": True})
    finish_run(folder, HOSTILE[0])
    side: dict[str, Any] = {"greedy": {"text": HOSTILE[0], "right": None}, "sampled": []}
    row = {"prompt": HOSTILE[1], "references": list(HOSTILE), "before": side, "after": side}
    append_jsonl(folder.answers, row)
    return folder


def _measured(share: float) -> dict[str, Any]:
    bounds = {"accuracy_greedy": [share - 0.1, share + 0.1], "accuracy_sampled": [share, share]}
    kinds = {"capital": {"rows": 8, "accuracy_greedy": share, "accuracy_sampled": share}}
    return {
        "rows": 40, "accuracy_greedy": share, "accuracy_sampled": share, "answer_logprob": -2.0,
        "ci95": bounds, "by_kind": kinds,
    }  # fmt: skip

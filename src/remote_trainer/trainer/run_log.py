"""One line of metrics.jsonl per logged update, and a file of completions per rollout."""

import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from transformers import TrainerCallback

from remote_trainer.activity import ACTIVITY
from remote_trainer.faults import fault_point
from remote_trainer.means import mean_of_known
from remote_trainer.metrics import METRICS
from remote_trainer.processes import gathered, is_main
from remote_trainer.records import Rollout
from remote_trainer.run_dir import RunDir, append_jsonl, read_jsonl, write_text

logger = logging.getLogger(__name__)

SKIPPED_IN_A_ROW = 3
Line = dict[str, Any]
OnLine = Callable[[Line, int], None]


def seconds_now() -> float:
    """Time in seconds, read after the device has finished; otherwise the work of one phase would
    count for the next one, which waits for it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return time.perf_counter()


class Stopwatch:
    """Seconds of the phases of one update."""

    def __init__(self) -> None:
        self.generate = 0.0
        self.score = 0.0
        self._started = time.perf_counter()

    def step_seconds(self) -> float:
        """Seconds since the update began."""
        return seconds_now() - self._started


class RunLog(TrainerCallback):  # type: ignore[misc]
    """Collects what an update did and writes it when TRL logs."""

    def __init__(self, folder: RunDir, on_line: OnLine) -> None:
        self._folder = folder
        self.inspect: Callable[[Line, Any], None] = lambda line, control: None
        """Called with every line before it is written; may add keys or stop training."""
        self._on_line = on_line
        self._window: list[Line] = []
        self._rollout: Rollout | None = None
        self._skipped = 0
        self.stopwatch = Stopwatch()
        self.sampler_gaps: list[float] = []
        """Per completion: mean absolute difference in nats between the log-probs of sampling and
        those of training."""

    def continue_after(self, step: int) -> None:
        """Delete what an earlier attempt logged after ``step``: these updates are repeated."""
        lines = [line for line in read_jsonl(self._folder.metrics) if line["step"] <= step]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text(self._folder.metrics, text)
        for file in self._folder.completions.glob("*.jsonl"):
            if file > self._folder.completions_file(step):
                file.unlink()

    def record(self, rollout: Rollout) -> None:
        """Store the completions of the current update and write them to completions/."""
        self._rollout = rollout
        if not is_main():  # on another machine the run folder need not exist
            return
        self._folder.require_present()
        self._skipped = 0 if rollout.has_signal else self._skipped + 1
        if self._skipped == SKIPPED_IN_A_ROW:
            logger.warning(
                "%d updates in a row had no group with signal, so nothing was learnt: rewards in "
                "a group differ by less than training.group_filter.min_std, or all completions "
                "were invalid (see floored_share, clipped_share); lower min_std, raise "
                "training.max_completion_length or choose another reward",
                SKIPPED_IN_A_ROW,
            )
        path = self._folder.completions_file(rollout.step)
        path.unlink(missing_ok=True)
        for line in completion_lines(rollout):
            append_jsonl(path, line)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.stopwatch = Stopwatch()
        ACTIVITY.begin_update(state.global_step + 1)
        self._rollout = None
        self.sampler_gaps = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        fault_point("update:stepped")
        ACTIVITY.end_update()
        line = update_line(self._rollout, self.stopwatch)
        gaps = gathered(self.sampler_gaps)
        line["sampler_gap"] = fmean(gaps) if gaps else None
        self._window.append(line)
        if state.global_step >= state.max_steps:
            control.should_log = True  # else an incomplete logging window is never written

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any
    ) -> None:
        if "loss" not in logs or not is_main():  # without loss: the summary at the end of training
            return
        line = {"step": state.global_step}
        line.update({key: logs.get(key) for key, metric in METRICS.items() if metric.from_trl})
        line.update(_mean_of(self._window))
        line["peak_memory_mb"] = peak_memory_mb()
        self._window = []
        self.inspect(line, control)
        fault_point("log")
        self._folder.require_present()
        append_jsonl(self._folder.metrics, line)
        self._on_line(line, state.max_steps)


def update_line(rollout: Rollout | None, watch: Stopwatch) -> Line:
    """The metrics of one update that TRL does not compute; null if nothing was sampled."""
    seconds = watch.step_seconds()
    line: Line = {
        **completion_metrics(rollout),
        "seconds_generate": watch.generate,
        "seconds_score": watch.score,
        "seconds_update": seconds - watch.generate - watch.score,
        "seconds_step": seconds,
        "tokens_per_second": None,
    }
    if rollout is not None:
        line["tokens_per_second"] = sum(rollout.tokens) / seconds
    return line


def completion_metrics(rollout: Rollout | None) -> Line:
    """Rewards, lengths and diversity of an update's completions."""
    return {
        key: None if rollout is None else metric.of(rollout)
        for key, metric in METRICS.items()
        if metric.of is not None
    }


def completion_lines(rollout: Rollout) -> list[Line]:
    """The lines of completions/, one per completion."""
    return [
        {
            "step": rollout.step,
            "prompt": each.sample.prompt,
            "completion": each.sample.completion_text,
            "answer": each.answer,
            "reward": each.result.reward,
            "rewards": dict(each.result.rewards),
            "tokens": len(each.sample.completion_ids),
            "ended": each.ended,
            "in_loss": each.in_loss,
            **({"logged": dict(each.logged)} if each.logged else {}),
        }
        for each in rollout.completions
    ]


def peak_memory_mb() -> float:
    """Peak memory so far in MB: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _mean_of(lines: Sequence[Line]) -> Line:
    """Mean of each key over the updates of one logging window, nulls left out."""
    merged: Line = {}
    for key in dict.fromkeys(key for line in lines for key in line):
        values = [line[key] for line in lines if line.get(key) is not None]
        if values and isinstance(values[0], dict):
            merged[key] = _mean_of(values)
        else:
            merged[key] = mean_of_known(values)
    return merged

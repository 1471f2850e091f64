"""Calls reward functions of the user's as TRL's GRPOTrainer calls them, and reads what they say."""

import asyncio
import copy
import functools
import inspect
import math
import reprlib
import threading
from collections.abc import Mapping, Sequence, Set
from typing import Any

from remote_trainer.activity import ACTIVITY
from remote_trainer.errors import RewardFunctionError
from remote_trainer.records import Sample
from remote_trainer.rewards.function_log import FunctionLog, as_number
from remote_trainer.rewards.named_function import NamedFunction, one_line

WANTED = "return a list with one number or None for each completion"
NOT_COLUMNS = {"prompt", "completion", "completion_ids"}
Values = list[float | None]


def call_together(
    functions: Sequence[NamedFunction],
    samples: Sequence[Sample],
    trainer_state: Any,
    log: FunctionLog,
) -> list[Values]:
    """One list of values per function; what they log joins ``log``.

    Functions run in turn, asynchronous ones then together. Raises RewardFunctionError that names
    the function and the place in its file.
    """
    logs = [FunctionLog() for _ in functions]
    returned: list[Any] = []
    try:
        for function, own in zip(functions, logs, strict=True):
            told = {"log_extra": own.log_extra, "log_metric": own.log_metric}
            with ACTIVITY.during(f"reward function {function.name}"):
                returned.append(
                    function.call({**_given(samples), "trainer_state": trainer_state, **told})
                )
    except RewardFunctionError:
        for value in filter(inspect.iscoroutine, returned):
            value.close()  # else Python warns of one that nobody waits for
        raise
    finished = _finish(functions, returned)
    values = [_numbers(f, value, samples) for f, value in zip(functions, finished, strict=True)]
    for function, own in zip(functions, logs, strict=True):
        _require_columns(function, own, len(samples))
        log.join(own, function.name)
    return values


def _given(samples: Sequence[Sample]) -> dict[str, Any]:
    """What TRL hands over of the batch; copies, because a function may change what it gets."""
    names = {name for sample in samples for name in sample.fields} - NOT_COLUMNS
    columns = {name: [sample.fields.get(name) for sample in samples] for name in sorted(names)}
    return {
        **copy.deepcopy(columns),
        "prompts": copy.deepcopy([sample.prompt for sample in samples]),
        "completions": [_as_trl_gives_it(sample) for sample in samples],
        "completion_ids": [list(sample.completion_ids) for sample in samples],
    }


def _as_trl_gives_it(sample: Sample) -> str | list[dict[str, str]]:
    if isinstance(sample.prompt, str):
        return sample.completion_text
    return [{"role": "assistant", "content": sample.completion_text}]


def _finish(functions: Sequence[NamedFunction], returned: Sequence[Any]) -> list[Any]:
    """``returned`` with what asynchronous functions come to in place of what is awaited."""
    waiting = {i: value for i, value in enumerate(returned) if inspect.isawaitable(value)}
    if not waiting:
        return list(returned)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*waiting.values(), return_exceptions=True)

    names = ", ".join(functions[i].name for i in waiting)
    with ACTIVITY.during(f"reward function {names}"):
        outcomes = asyncio.run_coroutine_threadsafe(all_of_them(), _event_loop()).result()
    finished = list(returned)
    for i, outcome in zip(waiting, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            raise functions[i].raised(outcome) from outcome
        finished[i] = outcome
    return finished


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """One loop for all calls, because clients are bound to theirs; in a thread of its own, because
    the caller's thread may run a loop already (a notebook's)."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="reward functions", daemon=True).start()
    return loop


def _numbers(function: NamedFunction, returned: Any, samples: Sequence[Sample]) -> Values:
    """The values of what a function returned: a list, a tensor, an array or the like."""
    listed = _listed(function, returned)
    if len(listed) != len(samples):
        count = f"{len(listed)} value{'s' if len(listed) != 1 else ''}"
        raise function.fault(f"returned {count} for {len(samples)} completions; {WANTED}")
    numbers: Values = []
    for value, sample in zip(listed, samples, strict=True):
        try:
            number = as_number(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise function.fault(f"returned {_brief(value)} in its list; {WANTED}") from None
        if number is not None and not math.isfinite(number):
            where = f"row {sample.source}" if sample.source else _brief(sample.completion_text)
            raise function.fault(
                f"returned {number} for {where}; return None where it cannot judge"
            )
        numbers.append(number)
    return numbers


def _listed(function: NamedFunction, returned: Any) -> list[Any]:
    try:
        values = None if isinstance(returned, str | bytes | Mapping | Set) else iter(returned)
    except TypeError:  # a number, None, a tensor without axes
        values = None
    if values is None:
        raise function.fault(f"returned {_brief(returned)}, which is no list; {WANTED}")
    try:
        return list(values)
    except Exception as error:  # a generator runs only now
        raise function.raised(error) from error


def _require_columns(function: NamedFunction, log: FunctionLog, count: int) -> None:
    for column, values in log.columns.items():
        if len(values) != count:
            raise function.fault(
                f"gave log_extra {len(values)} values of {column!r} for {count} completions; "
                "give one for each"
            )


def _brief(value: Any) -> str:
    return one_line(reprlib.repr(value))

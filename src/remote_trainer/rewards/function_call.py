"""Calls user reward functions as TRL's GRPOTrainer does, and checks the values they return."""

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

EXPECTED = "return a list with one number or None for each completion"
NOT_COLUMNS = {"prompt", "completion", "completion_ids"}
Values = list[float | None]


def call_together(
    functions: Sequence[NamedFunction],
    samples: Sequence[Sample],
    trainer_state: Any,
    log: FunctionLog,
) -> list[Values]:
    """One list of values per function; what they log is added to ``log``.

    Functions are called in order; coroutines then run concurrently. Raises RewardFunctionError with
    the function's name and its ``file:line``.
    """
    logs = [FunctionLog() for _ in functions]
    returned: list[Any] = []
    try:
        for function, own in zip(functions, logs, strict=True):
            loggers = {"log_extra": own.log_extra, "log_metric": own.log_metric}
            with ACTIVITY.during(f"reward function {function.name}"):
                returned.append(
                    function.call(
                        {**_arguments(samples), "trainer_state": trainer_state, **loggers}
                    )
                )
    except RewardFunctionError:
        for value in filter(inspect.iscoroutine, returned):
            value.close()  # else Python warns about a coroutine that was never awaited
        raise
    finished = _finish(functions, returned)
    values = [_numbers(f, value, samples) for f, value in zip(functions, finished, strict=True)]
    for function, own in zip(functions, logs, strict=True):
        _require_columns(function, own, len(samples))
        log.join(own, function.name)
    return values


def _arguments(samples: Sequence[Sample]) -> dict[str, Any]:
    """The batch as TRL passes it; copies, because a function may change its arguments."""
    names = {name for sample in samples for name in sample.fields} - NOT_COLUMNS
    columns = {name: [sample.fields.get(name) for sample in samples] for name in sorted(names)}
    return {
        **copy.deepcopy(columns),
        "prompts": copy.deepcopy([sample.prompt for sample in samples]),
        "completions": [_trl_completion(sample) for sample in samples],
        "completion_ids": [list(sample.completion_ids) for sample in samples],
    }


def _trl_completion(sample: Sample) -> str | list[dict[str, str]]:
    if isinstance(sample.prompt, str):
        return sample.completion_text
    return [{"role": "assistant", "content": sample.completion_text}]


def _finish(functions: Sequence[NamedFunction], returned: Sequence[Any]) -> list[Any]:
    """``returned`` with each awaitable replaced by its result."""
    pending = {i: value for i, value in enumerate(returned) if inspect.isawaitable(value)}
    if not pending:
        return list(returned)

    async def gather() -> list[Any]:
        return await asyncio.gather(*pending.values(), return_exceptions=True)

    names = ", ".join(functions[i].name for i in pending)
    with ACTIVITY.during(f"reward function {names}"):
        outcomes = asyncio.run_coroutine_threadsafe(gather(), _event_loop()).result()
    finished = list(returned)
    for i, outcome in zip(pending, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            raise functions[i].raised(outcome) from outcome
        finished[i] = outcome
    return finished


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """One event loop for all calls, because HTTP clients are bound to the loop that they were
    created in. It has its own thread, because the caller's may already run a loop (a notebook)."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="reward functions", daemon=True).start()
    return loop


def _numbers(function: NamedFunction, returned: Any, samples: Sequence[Sample]) -> Values:
    """One number or None per completion, from the returned list, tensor or array."""
    values = _as_list(function, returned)
    if len(values) != len(samples):
        count = f"{len(values)} value{'s' if len(values) != 1 else ''}"
        raise function.fault(f"returned {count} for {len(samples)} completions; {EXPECTED}")
    numbers: Values = []
    for value, sample in zip(values, samples, strict=True):
        try:
            number = as_number(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise function.fault(f"returned {_short(value)} in its list; {EXPECTED}") from None
        if number is not None and not math.isfinite(number):
            where = f"row {sample.source}" if sample.source else _short(sample.completion_text)
            raise function.fault(f"returned {number} for {where}; return None if it cannot judge")
        numbers.append(number)
    return numbers


def _as_list(function: NamedFunction, returned: Any) -> list[Any]:
    try:
        values = None if isinstance(returned, str | bytes | Mapping | Set) else iter(returned)
    except TypeError:  # a number, None or a tensor without axes
        values = None
    if values is None:
        raise function.fault(f"returned {_short(returned)}, which is not a list; {EXPECTED}")
    try:
        return list(values)
    except Exception as error:  # the code of a generator runs here
        raise function.raised(error) from error


def _require_columns(function: NamedFunction, log: FunctionLog, count: int) -> None:
    for column, values in log.columns.items():
        if len(values) != count:
            raise function.fault(
                f"passed {len(values)} values of {column!r} to log_extra for {count} completions; "
                "pass one for each"
            )


def _short(value: Any) -> str:
    return one_line(reprlib.repr(value))

"""A reward function of the user's own, in the form TRL calls it."""

import importlib
import math
import numbers
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, field_validator, model_validator

from remote_trainer.errors import RewardFunctionError
from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Condition, Plan, RewardConfig, as_conditions
from remote_trainer.rewards.properties import every_property


class UserFunction(RewardConfig):
    """A Python function of your own: any reward function written for TRL.

    Formula: r = f(prompts=[...], completions=[...], completion_ids=[[...]], **columns), one number
    or None per completion; every further key of the data rows arrives as a list under its name.
    Prompts and completions are message lists where the model has a chat template, else texts.
    Modules are also found in the working directory.

    Range: what the function returns; declare it with `range` to use a `gate`, whose floor is its
    lower end.

    Cost: no forward pass of ours.

    Source: the reward contract of TRL's GRPOTrainer.

    Known failure: none of the catalogue's properties are checked; a function that raises, or
    returns something else than numbers and None, stops the run by its name.
    """

    type: Literal["function"] = "function"
    """This reward; may be left out where `function` is written."""
    function: str
    """Where it is: `package.module:name`."""
    range: tuple[float, float] | None = None
    """Lowest and highest value it returns; null: not known."""
    gate: Annotated[tuple[Condition, ...], BeforeValidator(as_conditions)] = ()
    """A completion that fails one of these gets the low end of `range`."""

    @field_validator("function")
    @classmethod
    def _has_two_parts(cls, function: str) -> str:
        module, colon, name = function.partition(":")
        if not (colon and name.isidentifier() and all(p.isidentifier() for p in module.split("."))):
            raise ValueError(f"{function!r} names no function; write package.module:name")
        return function

    @model_validator(mode="after")
    def _gate_needs_a_floor(self) -> Self:
        if self.gate and self.range is None:
            raise ValueError("gate needs range: [low, high], because low is what it gives")
        return self

    @property
    def exceptions(self) -> dict[str, str]:
        return every_property("the function decides")

    @property
    def minimum(self) -> float:
        return self.range[0] if self.range else -math.inf

    @property
    def maximum(self) -> float:
        return self.range[1] if self.range else math.inf

    def problem(self) -> str | None:
        """Why the function cannot be found; imports its module."""
        try:
            self._find()
        except RewardFunctionError as error:
            return str(error)
        return None

    def plans(self, samples: Sequence[Sample], encode: Encoder) -> list[Plan | None]:
        """One call for all samples; None where the function gives None."""
        return [
            Plan.floor(self.minimum)
            if self.fails_gate(sample)
            else None
            if value is None
            else Plan.settled(float(value))
            for sample, value in zip(samples, self._call(samples), strict=True)
        ]

    def _call(self, samples: Sequence[Sample]) -> list[float | None]:
        function = self._find()
        names = sorted({name for sample in samples for name in sample.fields})
        try:
            values = list(
                function(
                    prompts=[sample.prompt for sample in samples],
                    completions=[_as_trl_gives_it(sample) for sample in samples],
                    completion_ids=[list(sample.completion_ids) for sample in samples],
                    **{name: [sample.fields.get(name) for sample in samples] for name in names},
                )
            )
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise RewardFunctionError(
                f"{self.function} raised {type(error).__name__}: {error} "
                f"({Path(frame.filename).name}:{frame.lineno})"
            ) from error
        wrong = [v for v in values if v is not None and not isinstance(v, numbers.Real)]
        if len(values) != len(samples) or wrong:
            raise RewardFunctionError(
                f"{self.function} returned {wrong[:1] or len(values)} for {len(samples)} "
                "completions; return one number or None for each"
            )
        return values

    def _find(self) -> Callable[..., Any]:
        module_name, _, name = self.function.partition(":")
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            function = getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError) as error:
            raise RewardFunctionError(f"{self.function} cannot be found: {error}") from error
        if not callable(function):
            raise RewardFunctionError(
                f"{self.function} is a {type(function).__name__}, not callable"
            )
        found: Callable[..., Any] = function
        return found


def _as_trl_gives_it(sample: Sample) -> str | list[dict[str, str]]:
    if isinstance(sample.prompt, str):
        return sample.completion_text
    return [{"role": "assistant", "content": sample.completion_text}]

"""The user's own reward function, with the interface of TRL's."""

import math
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import field_validator, model_validator

from remote_trainer.engines.untrained_state import untrained_state
from remote_trainer.errors import RewardFunctionError
from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Gate, Plan, RewardConfig
from remote_trainer.rewards.function_call import Values, call_together
from remote_trainer.rewards.function_log import FunctionLog
from remote_trainer.rewards.named_function import NamedFunction, find_function
from remote_trainer.rewards.properties import every_property


class UserFunction(RewardConfig):
    """A Python function of your own: any reward function written for TRL.

    Formula: r = f(prompts=[...], completions=[...], completion_ids=[[...]], trainer_state=...,
    log_extra=..., log_metric=..., **columns), one number or None per completion; every other key
    of the data rows is passed as a list under its name. A function without `**kwargs` gets only its
    named parameters. It may be `async`, a callable object, or a class with callable instances
    whose constructor needs no arguments; it may return a list, a tensor or an array. Prompts and
    completions are message lists if the model has a chat template, else strings. Modules in the
    working directory can be imported. `trainer_state` is that of the trainer; outside training
    (`score`, `eval`, the evaluation before and after, the self-test) it is at step 0.
    `log_metric(name, value)` writes to `logged` in metrics.jsonl and to the tracker as
    `logged/name`; `log_extra(column, values)` writes to `logged` of each line in completions/ and
    of each row that `score` writes. TRL's `environments` and reward models are not passed.

    Range: that of the function; set `range` to use a `gate`, which gives its lower end.

    Cost: no forward pass by the program.

    Source: the reward function interface of TRL's GRPOTrainer.

    Known failure: none of the catalogue's properties are checked; a function that raises, or
    returns anything but finite numbers and None, stops the run with its name and line.
    """

    type: Literal["function"] = "function"
    """This reward; may be omitted if `function` is set."""
    function: str
    """Import path: `package.module:name`."""
    range: tuple[float, float] | None = None
    """Lowest and highest value it returns; null: unknown."""
    gate: Gate = ()
    """A completion that fails one of these gets the lower end of `range`."""

    @field_validator("function")
    @classmethod
    def _has_two_parts(cls, function: str) -> str:
        module, colon, name = function.partition(":")
        if not (colon and name.isidentifier() and all(p.isidentifier() for p in module.split("."))):
            raise ValueError(f"{function!r} is not a path of a function; write package.module:name")
        return function

    @model_validator(mode="after")
    def _gate_needs_range(self) -> Self:
        if self.gate and self.range is None:
            raise ValueError("gate needs range: [low, high]; completions that fail it get low")
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
        """Why the function cannot be found or called; imports its module."""
        try:
            return self.find().problem()
        except RewardFunctionError as error:
            return str(error)

    def plans(self, samples: Sequence[Sample], encode: Encoder) -> list[Plan | None]:
        """Plans from one call for all samples, outside training."""
        [values] = call_together([self.find()], samples, untrained_state(), FunctionLog())
        return self.plans_of(samples, values)

    def plans_of(self, samples: Sequence[Sample], values: Values) -> list[Plan | None]:
        """Plans for the values that the function returned; None stays None."""
        return [
            Plan.floor(self.minimum)
            if self.fails_gate(sample)
            else None
            if value is None
            else Plan.constant(value)
            for sample, value in zip(samples, values, strict=True)
        ]

    def find(self) -> NamedFunction:
        """Import the function; RewardFunctionError if that fails."""
        return find_function(self.function)

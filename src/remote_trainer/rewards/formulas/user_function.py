"""A reward function of the user's own, in the form TRL calls it."""

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
    log_extra=..., log_metric=..., **columns), one number or None per completion; every further key
    of the data rows arrives as a list under its name. A function without `**kwargs` gets what it
    names. It may be `async`, an object that can be called, or a class of such objects that is made
    without arguments; it may return a list, a tensor or an array. Prompts and completions are
    message lists where the model has a chat template, else texts. Modules are also found in the
    working directory. `trainer_state` is the trainer's own; outside of training (`score`, `eval`,
    the evaluation before and after, the self-test) it stands at step 0. `log_metric(name, value)`
    goes to `logged` in metrics.jsonl and to the tracker as `logged/name`; `log_extra(column,
    values)` goes to `logged` of each line in completions/ and of each row that `score` writes. What
    TRL alone has is not handed over: `environments`, reward models.

    Range: what the function returns; declare it with `range` to use a `gate`, whose floor is its
    lower end.

    Cost: no forward pass of ours.

    Source: the reward contract of TRL's GRPOTrainer.

    Known failure: none of the catalogue's properties are checked; a function that raises, or
    returns something else than finite numbers and None, stops the run by its name and line.
    """

    type: Literal["function"] = "function"
    """This reward; may be left out where `function` is written."""
    function: str
    """Where it is: `package.module:name`."""
    range: tuple[float, float] | None = None
    """Lowest and highest value it returns; null: not known."""
    gate: Gate = ()
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
        """Why the function cannot be found or called; imports its module."""
        try:
            return self.find().problem()
        except RewardFunctionError as error:
            return str(error)

    def plans(self, samples: Sequence[Sample], encode: Encoder) -> list[Plan | None]:
        """One call for all samples, on its own and outside of training."""
        [values] = call_together([self.find()], samples, untrained_state(), FunctionLog())
        return self.settle(samples, values)

    def settle(self, samples: Sequence[Sample], values: Values) -> list[Plan | None]:
        """Plans of what the function said; None where that is None."""
        return [
            Plan.floor(self.minimum)
            if self.fails_gate(sample)
            else None
            if value is None
            else Plan.settled(value)
            for sample, value in zip(samples, values, strict=True)
        ]

    def find(self) -> NamedFunction:
        """What `function` names; RewardFunctionError where that cannot be had."""
        return find_function(self.function)

"""What every reward is: its settings, its floor, and a plan for judging one completion."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from remote_trainer.field_paths import find
from remote_trainer.records import Encoder, Sample, ScoreRequest
from remote_trainer.references import accepted_answers
from remote_trainer.text_statistics import endless

Scores = Sequence[float]
Condition = Literal["ended", "not_empty", "not_looping"]
CONDITIONS: tuple[Condition, ...] = ("ended", "not_empty", "not_looping")


@dataclass(frozen=True)
class Plan:
    """What to ask of the model about one completion, and how the answers become a number.

    ``value`` is called with one sequence of numbers (nats) per request, in their order.
    """

    requests: tuple[ScoreRequest, ...]
    value: Callable[..., float]
    invalid: bool = False

    @classmethod
    def settled(cls, value: float) -> Self:
        """A reward that is known without the model."""
        return cls((), lambda: value)

    @classmethod
    def floor(cls, value: float) -> Self:
        """A completion that is not measured: it gets the reward's minimum."""
        return cls((), lambda: value, invalid=True)


def as_conditions(value: Any) -> Any:
    """``true`` is all conditions, ``false`` none; one name may stand without a list."""
    if isinstance(value, bool):
        return CONDITIONS if value else ()
    return [value] if isinstance(value, str) else value


class RewardConfig(BaseModel):
    """Settings of one reward. ``RewardConfig(type="supervised", ...)`` gives that reward's class.

    A reward is a subclass in a file of its own: its options are fields, ``plan`` is its formula,
    and its docstring (Formula, Range, Cost, Source, Known failure) is its page in the catalogue.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    type: str = "inverse_loss"
    """Which reward of the catalogue."""
    answer_field: str = "answer"
    """Key of the data rows that holds the reference answer, or a path such as answers.text.0; of a
    list of accepted ones the best counts."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Factor in the weighted sum when several rewards are configured."""
    gate: Annotated[tuple[Condition, ...], BeforeValidator(as_conditions)] = ("not_looping",)
    """A completion that fails one of these gets the minimum: ended, not_empty, not_looping."""

    needs_group: ClassVar[bool] = False
    """Judges a completion by the others of its prompt."""

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        """Hand ``RewardConfig(type=...)`` over to the class of that type."""
        if cls is RewardConfig:
            wanted = implied_type(settings)
            known = {kind.model_fields["type"].default: kind for kind in cls.__subclasses__()}
            if wanted not in known:
                there = ", ".join(sorted(known))
                raise ValueError(f"type: no reward is called {wanted!r}; there are {there}")
            cls = known[wanted]
        return super().__new__(cls)

    @property
    def minimum(self) -> float:
        """The lowest value this reward gives; an empty completion gets exactly this."""
        return 0.0

    @property
    def maximum(self) -> float:
        """The highest value this reward can give."""
        return 1.0

    @property
    def needs_answer(self) -> bool:
        """Whether rows without a reference answer cannot be judged."""
        return False

    @property
    def exceptions(self) -> dict[str, str]:
        """Properties of docs/rewards.md that do not hold for this reward, and why."""
        return {}

    @property
    def truncated_is_invalid(self) -> bool:
        """Whether a truncated completion gets the minimum."""
        return True

    def problem(self) -> str | None:
        """What would keep this reward from working here, as far as it shows without a model."""
        return None

    def plans(self, samples: Sequence[Sample], encode: Encoder) -> list[Plan | None]:
        """One plan per sample; None where it cannot be judged (no reference), never a 0."""
        return [self._plan(sample, encode) for sample in samples]

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        """How a completion that is worth measuring is judged."""
        raise NotImplementedError

    def is_invalid(self, sample: Sample) -> bool:
        """Whether ``sample`` gets the minimum without being measured."""
        truncated = sample.truncated and self.truncated_is_invalid
        return sample.empty or truncated or self.fails_gate(sample)

    def fails_gate(self, sample: Sample) -> bool:
        """Whether one of the conditions of ``gate`` is not met."""
        failed = {
            "ended": lambda: sample.truncated,
            "not_empty": lambda: sample.empty,
            "not_looping": lambda: endless(sample.completion_text),
        }
        return any(failed[condition]() for condition in self.gate)

    def answer_of(self, sample: Sample) -> str | None:
        """The row's reference answer; None where it is missing or blank. In `plan` there is one,
        because each of several accepted answers has a plan of its own."""
        answers = accepted_answers(find(sample.fields, self.answer_field))
        return answers[0] if answers else None

    def by_best_answer(self, sample: Sample, plan: Callable[[Sample], Plan | None]) -> Plan | None:
        """The plan for the row's answer; of several accepted ones the highest value counts."""
        answers = accepted_answers(find(sample.fields, self.answer_field))
        if len(answers) < 2 or not self.needs_answer:
            return plan(sample)
        alone = ({**sample.fields, self.answer_field: answer} for answer in answers)
        plans = [plan(replace(sample, fields=fields)) for fields in alone]
        return best_of([each for each in plans if each is not None])

    def _plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        if self.needs_answer and self.answer_of(sample) is None:
            return None
        if self.is_invalid(sample):
            return Plan.floor(self.minimum)
        return self.by_best_answer(sample, lambda each: self.plan(each, encode))


def best_of(plans: Sequence[Plan]) -> Plan | None:
    """One plan whose value is the highest of these; None of none."""
    if not plans:
        return None
    ends = list(accumulate(len(plan.requests) for plan in plans))

    def value(*scores: Scores) -> float:
        values = [
            plan.value(*scores[end - len(plan.requests) : end])
            for plan, end in zip(plans, ends, strict=True)
        ]
        # A NaN is to be seen: it stops the run by name.
        return next((each for each in values if math.isnan(each)), max(values))

    return Plan(tuple(request for plan in plans for request in plan.requests), value)


def implied_type(settings: Any) -> Any:
    """The type of a reward section: written, or ``function`` where a function is named."""
    return settings.get("type", "function" if "function" in settings else "inverse_loss")

"""Base class of all rewards: options, minimum, and the plan that scores one completion."""

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
    """The score requests of one completion, and the function that computes its reward from them.

    ``value`` gets one sequence of scores (nats) per request, in the order of ``requests``.
    """

    requests: tuple[ScoreRequest, ...]
    value: Callable[..., float]
    invalid: bool = False

    @classmethod
    def constant(cls, value: float) -> Self:
        """A reward that needs no scores of the model."""
        return cls((), lambda: value)

    @classmethod
    def floor(cls, value: float) -> Self:
        """An invalid completion (empty, truncated, gated): it gets the reward's minimum."""
        return cls((), lambda: value, invalid=True)


def as_conditions(value: Any) -> Any:
    """Convert ``true`` to all conditions, ``false`` to none and a single name to a list."""
    if isinstance(value, bool):
        return CONDITIONS if value else ()
    return [value] if isinstance(value, str) else value


Gate = Annotated[
    tuple[Condition, ...],
    BeforeValidator(as_conditions, json_schema_input_type=bool | Condition | list[Condition]),
]


class RewardConfig(BaseModel):
    """Settings of one reward. ``RewardConfig(type="supervised", ...)`` gives that reward's class.

    Each reward is a subclass in its own file. Its fields are the options, ``plan`` computes the
    formula, and its docstring (Formula, Range, Cost, Source, Known failure) is its catalogue page.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    type: str = "inverse_loss"
    """Name of the reward."""
    answer_field: str = "answer"
    """Key of the data rows that holds the reference answer, or a path such as answers.text.0. With
    a list of accepted answers, the one with the highest reward counts."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Factor in the weighted sum when several rewards are configured."""
    gate: Gate = ("not_looping",)
    """A completion that fails one of these gets the minimum: ended, not_empty, not_looping."""

    needs_group: ClassVar[bool] = False
    """Whether a completion's reward depends on the others of its prompt."""

    only_certainty: ClassVar[bool] = False
    """Whether it measures only how sure the model is of what it says."""

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        """Create the class of the reward that ``type`` names."""
        if cls is RewardConfig:
            wanted = implied_type(settings)
            known = {kind.model_fields["type"].default: kind for kind in cls.__subclasses__()}
            if wanted not in known:
                names = ", ".join(sorted(known))
                raise ValueError(f"type: unknown reward {wanted!r}; write one of {names}")
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
        """Whether the reward requires a reference answer."""
        return False

    @property
    def exceptions(self) -> dict[str, str]:
        """Properties of docs/rewards.md that this reward does not have -> reason."""
        return {}

    @property
    def truncated_is_invalid(self) -> bool:
        """Whether a truncated completion gets the minimum."""
        return True

    def problem(self) -> str | None:
        """Why this reward cannot run here, checked without a model; None if it can."""
        return None

    def plans(self, samples: Sequence[Sample], encode: Encoder) -> list[Plan | None]:
        """One plan per sample; None if it cannot be judged (no reference answer), never 0."""
        return [self._plan(sample, encode) for sample in samples]

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        """The plan of a valid completion; None if it cannot be judged."""
        raise NotImplementedError

    def is_invalid(self, sample: Sample) -> bool:
        """Whether ``sample`` gets the minimum: it is empty, truncated or fails the gate."""
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
        """The row's reference answer; None if it is missing or blank. `plan` gets exactly one,
        because each of several accepted answers has its own plan."""
        answers = accepted_answers(find(sample.fields, self.answer_field))
        return answers[0] if answers else None

    def by_best_answer(self, sample: Sample, plan: Callable[[Sample], Plan | None]) -> Plan | None:
        """The plan for the row's answer; of several accepted answers the highest reward counts."""
        answers = accepted_answers(find(sample.fields, self.answer_field))
        if len(answers) < 2 or not self.needs_answer:
            return plan(sample)
        with_one_answer = ({**sample.fields, self.answer_field: answer} for answer in answers)
        plans = [plan(replace(sample, fields=fields)) for fields in with_one_answer]
        return best_of([each for each in plans if each is not None])

    def _plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        if self.needs_answer and self.answer_of(sample) is None:
            return None
        if self.is_invalid(sample):
            return Plan.floor(self.minimum)
        return self.by_best_answer(sample, lambda each: self.plan(each, encode))


def best_of(plans: Sequence[Plan]) -> Plan | None:
    """A plan whose value is the maximum of ``plans``; None if there are none."""
    if not plans:
        return None
    ends = list(accumulate(len(plan.requests) for plan in plans))

    def value(*scores: Scores) -> float:
        values = [
            plan.value(*scores[end - len(plan.requests) : end])
            for plan, end in zip(plans, ends, strict=True)
        ]
        # max() may drop a NaN, but a NaN must stop the run.
        return next((each for each in values if math.isnan(each)), max(values))

    return Plan(tuple(request for plan in plans for request in plan.requests), value)


def implied_type(settings: Any) -> Any:
    """``type`` of a reward section; default ``function`` if that key is set, else inverse_loss."""
    return settings.get("type", "function" if "function" in settings else "inverse_loss")

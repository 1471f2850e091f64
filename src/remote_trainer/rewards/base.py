"""What every reward is: its settings, and a plan for judging one completion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from remote_trainer.records import Encoder, LogprobRequest, Sample

Logprobs = Sequence[float]


@dataclass(frozen=True)
class Plan:
    """What to ask of the model about one completion, and how the answers become a number.

    ``value`` is called with one sequence of log-probabilities (nats) per request, in their order.
    """

    requests: tuple[LogprobRequest, ...]
    value: Callable[..., float]

    @classmethod
    def settled(cls, value: float) -> Self:
        """A completion whose reward is known without the model (empty, truncated)."""
        return cls((), lambda: value)


class RewardConfig(BaseModel):
    """Settings of one reward. ``RewardConfig(type="supervised", ...)`` gives that reward's class.

    A reward is a subclass in a file of its own: its options are fields, ``plan`` is its formula.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    type: str = "inverse_loss"
    """Which reward of the catalogue."""
    answer_field: str = "answer"
    """Key of the data rows that holds the reference answer."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Factor in the weighted sum when several rewards are configured."""

    needs_answer: ClassVar[bool] = False

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        """Hand ``RewardConfig(type=...)`` over to the class of that type."""
        if cls is RewardConfig:
            wanted = settings.get("type", cls.model_fields["type"].default)
            known = {kind.model_fields["type"].default: kind for kind in cls.__subclasses__()}
            if wanted not in known:
                there = ", ".join(sorted(known))
                raise ValueError(f"type: no reward is called {wanted!r}; there are {there}")
            cls = known[wanted]
        return super().__new__(cls)

    @property
    def minimum(self) -> float:
        """The lowest value this reward gives; an empty completion gets exactly this."""
        raise NotImplementedError

    @property
    def maximum(self) -> float:
        """The highest value this reward can give."""
        raise NotImplementedError

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        """How ``sample`` is judged; None if it cannot be (no reference), which is never a 0."""
        raise NotImplementedError

    def answer_of(self, sample: Sample) -> str | None:
        """The row's reference answer; None where it is missing or blank."""
        answer = sample.fields.get(self.answer_field)
        return answer if isinstance(answer, str) and answer.strip() else None

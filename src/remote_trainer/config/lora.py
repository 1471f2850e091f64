"""Settings of the adapter and of the layers that get one."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from remote_trainer.config.section import PositiveInt, Section
from remote_trainer.models.layer_names import KEYWORDS


def _target_list(value: Any) -> Any:
    """A keyword cannot be combined with other names."""
    if value in KEYWORDS:
        return (value,)
    if isinstance(value, str):
        raise ValueError(f"found {value!r}; write auto, all-linear, or a list: [{value}]")
    if isinstance(value, list | tuple) and len(value) > 1:
        for word in KEYWORDS:
            if word in value:
                raise ValueError(
                    f"{word} cannot be combined with other names; write {word} without a list"
                )
    return value


def _as_written(names: tuple[str, ...]) -> str | list[str]:
    return names[0] if names[0] in KEYWORDS else list(names)


TargetModules = Annotated[
    tuple[str, ...],
    Field(min_length=1),
    BeforeValidator(_target_list),
    PlainSerializer(_as_written),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(KEYWORDS)},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]


class LoraSettings(Section):
    r: PositiveInt = 16
    """LoRA rank. With model.adapter: omit it or repeat that adapter's rank."""
    alpha: PositiveInt = 16
    """The adapter is scaled by alpha / r. With model.adapter: omit it or repeat that adapter's."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input in training."""
    target_modules: TargetModules = Field("auto", validate_default=True)
    """Linear layers that get an adapter: a list of names; auto: the seven projections of a Llama
    if the model has them, otherwise all linear layers in its blocks; all-linear: all except the
    head. With model.adapter: omit it or repeat that adapter's."""

    @property
    def requested(self) -> str | tuple[str, ...]:
        """The keyword, or the names."""
        names = self.target_modules
        return names[0] if names[0] in KEYWORDS else names

    @model_validator(mode="after")
    def _head_stays_frozen(self) -> Self:
        if "lm_head" in self.target_modules:
            raise ValueError(
                "target_modules: lm_head cannot have an adapter, because log-probabilities are "
                "computed from its weight directly; remove it"
            )
        return self

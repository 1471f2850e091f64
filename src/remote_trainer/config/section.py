"""Base class and types of the schema."""

from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from remote_trainer.paths import expand

PositiveInt = Annotated[int, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PathText = Annotated[str, AfterValidator(expand)]
"""A path, keyword or model id; ``~`` is expanded."""


class Section(BaseModel):
    """Settings are frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, possibly as an optional one; None for other values."""
    members = (annotation, *get_args(annotation))
    return next((m for m in members if isinstance(m, type) and issubclass(m, BaseModel)), None)

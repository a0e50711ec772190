"""What the models of a SceneSpec are made of: kinds of numbers, each with its bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Colour = tuple[Unit, Unit, Unit]


def ordered(value: tuple[float, float]) -> tuple[float, float]:
    """The pair, if the first is not the greater one; for pydantic."""
    if value[0] > value[1]:
        raise ValueError(f"must be [least, greatest], not {list(value)}; swap the two")
    return value


# From the least to the greatest of what a number may be.
Range = Annotated[tuple[Finite, Finite], AfterValidator(ordered)]
UnitRange = Annotated[tuple[Unit, Unit], AfterValidator(ordered)]
_Factor = Annotated[float, Field(ge=0.0, le=10.0)]
Factors = Annotated[tuple[_Factor, _Factor], AfterValidator(ordered)]


class Part(BaseModel):
    """A mapping in the YAML file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

"""What every experiment says of how long and how fast it learns."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Schedule(BaseModel):
    """The part of an experiment that the training loop itself reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    batch: int = Field(default=64, ge=1)
    steps: int = Field(default=9_000, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: int = Field(default=200, ge=1)  # steps
    weight_decay: float = Field(default=1e-4, ge=0)
    clip_norm: float = Field(default=50.0, gt=0)

"""The experiments: named values, one loop runs them all."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from inference.posterior import PosteriorConfig


class Experiment(BaseModel):
    """What to learn, with which network, for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    spec: str  # a built-in SceneSpec or a YAML file
    network: PosteriorConfig = PosteriorConfig()
    supersample: int = Field(default=2, ge=1)
    backend: str = "auto"
    batch: int = Field(default=64, ge=1)
    steps: int = Field(default=9_000, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: int = Field(default=200, ge=1)  # steps
    weight_decay: float = Field(default=1e-4, ge=0)
    clip_norm: float = Field(default=50.0, gt=0)
    tolerance: float = Field(default=0.03, ge=0)  # m, at the start: how coarsely positions count
    tolerance_until: float = Field(default=0.5, gt=0, le=1)  # part of the run after which it is 0


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(name="tabletop", spec="tabletop"),
        Experiment(name="tabletop-fixed", spec="tabletop-fixed", steps=8_000),
        Experiment(
            name="objects",
            spec="objects",
            network=PosteriorConfig(height=64, width=64, channels=48, blocks=2),
            steps=4_000,
        ),
    )
}

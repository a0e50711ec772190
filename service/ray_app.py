"""The service on Ray Serve: the same application, in as many replicas as there is to do.

    serve run service.ray_app:build checkpoint=/models/table most=8

Each replica is the whole application with one engine, as `AIRSCENE_…` and the arguments say. The
checkpoint must lie at the same path on every machine of the cluster. Needs the extra `ray`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray import serve

from inference.checkpoint2d import open_checkpoint
from service.app import create_app
from service.settings import Settings, load_settings

NAME = "airscene"


class Scale(BaseModel):
    """How many replicas, and when there are to be more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path | None = None  # as AIRSCENE_CHECKPOINT says when not given
    least: int = Field(default=1, ge=0)  # replicas when there is nothing to do
    most: int = Field(default=4, ge=1)
    # Requests in a replica, being answered or waiting, at which more replicas are started: an
    # engine infers several pictures at once, and a robot does not wait for long.
    ongoing: float = Field(default=4.0, gt=0.0)
    cpus: float = Field(default=1.0, gt=0.0)  # cores for each
    upscale_seconds: float = Field(default=5.0, ge=0.0)  # of more work, until there are more
    downscale_seconds: float = Field(default=60.0, ge=0.0)  # of less, until there are fewer

    @model_validator(mode="after")
    def _ordered(self) -> Scale:
        if self.least > self.most:
            raise ValueError(f"least={self.least} is more than most={self.most}; swap them")
        return self


def build(scale: Scale) -> Any:
    """The application for `serve run` and `serve.run`.

    Args:
        scale: how many replicas of it.

    Raises:
        SettingsError: a setting is wrong.
        CheckpointError: there is no usable checkpoint on this machine.
    """
    settings = settings_of_replica(scale)
    open_checkpoint(settings.checkpoint)  # told here, and not by replicas that start for ever

    def in_replica() -> FastAPI:  # Ray knows what makes an application by its being a function
        return application(settings)

    deployment = serve.deployment(
        serve.ingress(in_replica)(),
        name=NAME,
        max_ongoing_requests=settings.queue_size,
        autoscaling_config={
            "min_replicas": scale.least,
            "max_replicas": scale.most,
            "target_ongoing_requests": scale.ongoing,
            "upscale_delay_s": scale.upscale_seconds,
            "downscale_delay_s": scale.downscale_seconds,
        },
        ray_actor_options={"num_cpus": scale.cpus},
        graceful_shutdown_timeout_s=settings.drain_delay + settings.drain_seconds,
    )
    return deployment.bind()


def settings_of_replica(scale: Scale) -> Settings:
    """One engine in the replica's own process, with the cores that it is given."""
    settings = load_settings(checkpoint=scale.checkpoint)
    threads = max(1, int(scale.cpus))
    changes = {"engines": 1, "threads": threads, "decoders": 1}
    return settings.model_copy(
        update={**changes, "checkpoint": settings.checkpoint.resolve()},
    )


def application(settings: Settings) -> FastAPI:
    """The service's application, made in the replica."""
    return create_app(settings, loaded=open_checkpoint(settings.checkpoint))

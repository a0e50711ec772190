"""What the routes of cameras answer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service.schemas import InferResponse


class FrameSource(BaseModel):
    """Which frame of which camera a scene was inferred from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Of the camera.")
    frame: int = Field(description="Counts the frames that arrived, from 1; some are overtaken.")


class CameraScene(InferResponse):
    """The scene in a camera's latest frame.

    Here the `id` of an object lasts: it is the same in the next frame while the object is seen
    near its place, and is never given to another object of this camera.
    """

    source: FrameSource


class CameraStatus(BaseModel):
    """One camera."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    frame: int = Field(description="The latest one that was answered.")
    stamp: str = Field(description="When that frame arrived: RFC 3339, UTC, milliseconds.")
    age: float = Field(description="Seconds since then.")
    objects: int = Field(description="How many objects it shows.")


class CameraList(BaseModel):
    """All cameras, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cameras: list[CameraStatus]

"""The 2D form of the scene description: the answer of models that know windows and codes only."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.schemas import Box2D, CountEstimate, ImageInfo, ModelName, TimingMs


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Code(_Model):
    """What an object looks like, in the model's own terms: a Gaussian for each number."""

    mean: list[float]
    std: list[float]


class GlimpseObject(_Model):
    """One object in the picture."""

    id: int = Field(description="Its place in `objects`; not the same object in the next picture.")
    score: float = Field(description="Probability that it is there.")
    bbox2d: Box2D = Field(description="The window in which it is seen; may reach over the edge.")
    code: Code
    drawn: str | None = Field(
        default=None,
        description="The object alone, drawn again at the network's size: a PNG file in base64, "
        "when asked for.",
    )


class GlimpseQuality(_Model):
    """How well what was inferred, drawn again, explains the picture."""

    reconstruction_error: float = Field(
        description="Mean squared difference of the pixels (0 to 1), at the network's size."
    )
    explained: float = Field(
        ge=0.0, le=1.0, description="Share of the picture's squares that the drawing takes away."
    )


class GlimpseResponse(_Model):
    """What a 2D model sees in one picture."""

    schema_version: Literal["1.0"] = "1.0"
    request_id: str = Field(description="From the request's header X-Request-ID, or made here.")
    stamp: str = Field(description="When the picture arrived: RFC 3339, UTC, milliseconds.")
    model: ModelName
    image: ImageInfo
    frame_id: Literal["image"] = "image"
    count: CountEstimate
    objects: list[GlimpseObject] = Field(description="In the order in which they were seen.")
    quality: GlimpseQuality
    warnings: list[str]
    timing_ms: TimingMs
    drawn: str | None = Field(
        default=None, description="As `drawn` of an object, of all of them together."
    )


class GlimpseModelReport(_Model):
    """The 2D model that answers."""

    model: ModelName
    kind: Literal["2d"] = Field(default="2d", description="2d: it infers windows of a picture.")
    side: int = Field(description="px, of the square image that the network looks at")
    channels: int = Field(description="1: pictures are made grey; objects are light on black")
    greatest_count: int
    code: int = Field(description="Numbers of a code.")

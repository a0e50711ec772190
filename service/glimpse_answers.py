"""From the tensors of 2D models to the models of the HTTP schema."""

from __future__ import annotations

import base64
import io

from PIL import Image
from torch import Tensor

from inference.checkpoint2d import Checkpoint2d
from service import glimpse_schemas, schemas
from service.glimpse_engine import GlimpseAnswer


def compose_glimpses(
    answer: GlimpseAnswer, *, request_id: str, stamp: str, drawn: bool = False
) -> glimpse_schemas.GlimpseResponse:
    """The response to one picture; the arguments are those of `service.answers.compose`.

    With `drawn` it also holds what was inferred, drawn again.
    """
    picture, timing = answer.picture, answer.timing
    return glimpse_schemas.GlimpseResponse(
        request_id=request_id,
        stamp=stamp,
        model=_name(answer.checkpoint),
        image=schemas.ImageInfo(width=picture.width, height=picture.height, sha256=picture.sha256),
        count=schemas.CountEstimate(
            value=len(answer.glimpses), probabilities=answer.count_probabilities
        ),
        objects=[
            glimpse_schemas.GlimpseObject(
                id=k,
                score=glimpse.score,
                bbox2d=schemas.Box2D(**glimpse.window._asdict()),
                code=glimpse_schemas.Code(mean=glimpse.mean, std=glimpse.std),
                drawn=_png(answer.layers[k]) if drawn else None,
            )
            for k, glimpse in enumerate(answer.glimpses)
        ],
        quality=glimpse_schemas.GlimpseQuality(
            reconstruction_error=answer.reconstruction_error, explained=answer.explained
        ),
        warnings=list(picture.warnings),
        timing_ms=schemas.TimingMs(
            decode=picture.decode_ms,
            infer=timing.infer,
            refine=timing.refine,
            render=timing.render,
        ),
        drawn=_png(answer.layers.sum(0)) if drawn else None,
    )


def describe_glimpses(checkpoint: Checkpoint2d) -> glimpse_schemas.GlimpseModelReport:
    """What a model looks at and may find."""
    config = checkpoint.model.config
    return glimpse_schemas.GlimpseModelReport(
        model=_name(checkpoint),
        side=config.side,
        channels=config.channels,
        greatest_count=config.steps,
        code=config.what,
    )


def _png(pixels: Tensor) -> str:
    """The PNG file, in base64, of a picture `[channels, side, side]`, grey when it has one."""
    values = pixels.clamp(0.0, 1.0).mul(255.0).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _name(checkpoint: Checkpoint2d) -> schemas.ModelName:
    return schemas.ModelName(
        name=checkpoint.name, version=checkpoint.version, sha256=checkpoint.sha256
    )

"""`POST /render`: a picture of a described scene, or of how a photo differs from it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from inference.images import ImageError
from service import openapi, problems
from service.clients import connected
from service.dependencies import Drawing, Serving
from service.descriptions import DescriptionError
from service.drawing import CrowdedError
from service.problems import Problem
from service.runtime import image_problem
from service.scene_uploads import read_scene

router = APIRouter(tags=["inference"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A scene (an answer of /infer will do), and perhaps a photo.",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/SceneDescription"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["scene"],
                    "properties": {
                        "scene": {"$ref": "#/components/schemas/SceneDescription"},
                        "image": {"type": "string", "format": "binary"},
                    },
                }
            },
        },
    }
}


class PngResponse(Response):
    """A PNG file."""

    media_type = "image/png"


@router.post(
    "/render",
    openapi_extra=_BODY,
    response_class=PngResponse,
    responses=openapi.problems(400, 408, 413, 415, 422, 503),
)
async def render(
    request: Request,
    runtime: Serving,
    artist: Drawing,
    preview: Annotated[
        bool, Query(description="Half as large, in a third of the time: for scenes that move.")
    ] = False,
) -> Response:
    """The scene as this model's renderer draws it, PNG.

    With a photo beside it, their difference instead: black where the scene explains the photo.
    """
    runtime.check_ready()
    description, photo = await read_scene(request, runtime.settings)
    try:
        drawing = artist.draw(runtime.checkpoint, description, photo, preview=preview)
        picture = await connected(request, drawing)
    except DescriptionError as error:
        raise Problem(problems.INVALID, f"{error}.") from None
    except ImageError as error:
        raise image_problem(error) from None
    except CrowdedError:
        raise Problem(
            problems.BUSY,
            "As many drawings wait as may; ask again in a second.",
            {"Retry-After": "1"},
        ) from None
    return PngResponse(picture)

"""`POST /infer`: what stands on the table in a picture."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service import openapi, problems
from service.answers import compose, now
from service.clients import connected
from service.dependencies import Serving
from service.formats.choice import MEDIA_TYPES, Format, write
from service.problems import Problem
from service.samples import draw_samples
from service.schemas import InferResponse
from service.steps import walk
from service.uploads import read_image

router = APIRouter(tags=["inference"])

_OK = {
    "description": "In the format that was asked for: an InferResponse, a "
    "vision_msgs/Detection3DArray, a MuJoCo model or rows of BOP results.",
    "content": {
        "application/xml": {"schema": {"type": "string"}},
        "text/csv": {"schema": {"type": "string"}},
    },
}


@router.post(
    "/infer",
    openapi_extra=openapi.INFER,
    response_model=InferResponse,
    responses={200: _OK, **openapi.problems(400, 408, 413, 415, 422, 503)},
)
async def infer(
    request: Request,
    runtime: Serving,
    form: Annotated[
        Format,
        Query(
            alias="format",
            description="scene: JSON with all that is known. detection3d: JSON with the fields of "
            "ROS 2's vision_msgs/Detection3DArray. mjcf: a MuJoCo model that opens and simulates "
            "on its own. bop: CSV rows of the BOP benchmark.",
        ),
    ] = Format.SCENE,
    samples: Annotated[
        int, Query(ge=0, description="Scenes to draw from the posterior; with format=scene.")
    ] = 0,
    refine: Annotated[
        int,
        Query(
            ge=0,
            description="Steps of render and compare, at most: the scene is drawn, compared with "
            "the picture and moved until both agree. Takes some tens of milliseconds; 5 are "
            "enough. 0: the network's answer as it is.",
        ),
    ] = 0,
    steps: Annotated[
        bool,
        Query(description="Tell how the model came to its answer, step by step; format=scene."),
    ] = False,
    scene_id: Annotated[int, Query(ge=0, description="With format=bop.")] = 0,
    im_id: Annotated[int, Query(ge=0, description="With format=bop.")] = 0,
) -> InferResponse | Response:
    """What stands on the table in this picture."""
    runtime.check_ready()
    runtime.check_room()
    _check_samples(samples, runtime.settings.max_samples, form)
    if steps and form is not Format.SCENE:
        raise _no_place("steps", form)
    stamp = now()
    data = await read_image(request, runtime.settings)
    answer = await connected(request, runtime.answer(data, refine=refine))
    composed = compose(answer, request_id=request.state.request_id, stamp=stamp)
    if samples:
        drawn = await connected(request, runtime.run(lambda _: draw_samples(answer, samples)))
        composed = composed.model_copy(update={"samples": drawn})
    if steps:
        walked = await connected(request, runtime.run(lambda _: walk(answer)))
        if walked is None:
            raise Problem(
                problems.INVALID,
                "query.steps: the network of this model attends to no place; leave it out.",
            )
        composed = composed.model_copy(update={"steps": walked})
    if form is Format.SCENE:
        return composed
    spec = answer.checkpoint.spec
    text = await anyio.to_thread.run_sync(
        partial(write, form, composed, spec, scene_id=scene_id, im_id=im_id)
    )
    return Response(text, media_type=MEDIA_TYPES[form])


def _check_samples(samples: int, most: int, form: Format) -> None:
    if samples > most:
        raise Problem(problems.INVALID, f"query.samples: is {samples}; at most {most} are drawn.")
    if samples and form is not Format.SCENE:
        raise _no_place("samples", form)


def _no_place(query: str, form: Format) -> Problem:
    return Problem(
        problems.INVALID, f"query.{query}: format={form} has no place for them; leave it out."
    )

"""`POST /infer` and `GET /model` where a 2D model answers: windows and codes, not scenes."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Query
from starlette.requests import Request

from inference.checkpoint2d import Checkpoint2d
from service import openapi
from service.answers import now
from service.clients import connected
from service.dependencies import Serving
from service.glimpse_answers import compose_glimpses, describe_glimpses
from service.glimpse_engine import GlimpseAnswer
from service.glimpse_schemas import GlimpseModelReport, GlimpseResponse
from service.uploads import read_image

router = APIRouter(tags=["inference"])


@router.post(
    "/infer",
    openapi_extra=openapi.INFER,
    responses=openapi.problems(400, 408, 413, 415, 422, 503),
)
async def infer(
    request: Request,
    runtime: Serving,
    drawn: Annotated[
        bool, Query(description="Draw again what was inferred: each object, and all of them.")
    ] = False,
) -> GlimpseResponse:
    """What this picture shows: how many objects, in which windows, and what they look like."""
    runtime.check_ready()
    runtime.check_room()
    stamp = now()
    data = await read_image(request, runtime.settings)
    # The runtime hands on what its engine says: here, a GlimpseEngine.
    answer = cast(GlimpseAnswer, await connected(request, runtime.answer(data)))
    return compose_glimpses(answer, request_id=request.state.request_id, stamp=stamp, drawn=drawn)


@router.get("/model")
async def model(runtime: Serving) -> GlimpseModelReport:
    """The model that answers."""
    return describe_glimpses(cast(Checkpoint2d, runtime.checkpoint))

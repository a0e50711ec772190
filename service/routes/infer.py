"""`POST /infer`: what stands on the table in a picture."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from service import openapi
from service.answers import compose, now
from service.clients import connected
from service.dependencies import Serving
from service.schemas import InferResponse
from service.uploads import read_image

router = APIRouter(tags=["inference"])


@router.post(
    "/infer",
    openapi_extra=openapi.INFER,
    responses=openapi.problems(400, 408, 413, 415, 422, 503),
)
async def infer(request: Request, runtime: Serving) -> InferResponse:
    """What stands on the table in this picture."""
    runtime.check_ready()
    runtime.check_room()
    stamp = now()
    data = await read_image(request, runtime.settings)
    answer = await connected(request, runtime.answer(data))
    return compose(answer, request_id=request.state.request_id, stamp=stamp)

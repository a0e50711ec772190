"""`GET /model`: the model that answers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.answers import describe
from service.assets import compressed
from service.dependencies import Serving
from service.schemas import ModelReport

router = APIRouter(tags=["inference"])


@router.get("/model", response_model=ModelReport)
async def model(request: Request, runtime: Serving) -> Response:
    """The model that answers: its objects, the camera that it expects, how well it works."""
    report = describe(runtime.checkpoint).model_dump_json()
    return compressed(Response(report, media_type="application/json"), request.headers)

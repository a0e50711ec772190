"""`GET /metrics`: for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from service.dependencies import Serving

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics"}
    },
)
async def metrics(request: Request, runtime: Serving) -> Response:
    """What the server counts and measures, in Prometheus's text format."""
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(runtime.metrics.registry), media_type=media_type)

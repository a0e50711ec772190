"""`GET /healthz` and `GET /readyz`: for whoever starts, stops and watches the server."""

from __future__ import annotations

from fastapi import APIRouter

from service import openapi
from service.dependencies import Serving
from service.schemas import Status

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Status:
    """The process lives."""
    return Status(status="ok")


@router.get("/readyz", responses=openapi.problems(503))
async def readyz(runtime: Serving) -> Status:
    """The model is loaded, has inferred once and goes on, and the server is not about to end."""
    runtime.check_readiness()
    return Status(status="ready")

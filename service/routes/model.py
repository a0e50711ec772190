"""`GET /model`: the model that answers."""

from __future__ import annotations

from fastapi import APIRouter

from service.answers import describe
from service.dependencies import Serving
from service.schemas import ModelReport

router = APIRouter(tags=["inference"])


@router.get("/model")
async def model(runtime: Serving) -> ModelReport:
    """The model that answers: its objects, the camera that it expects, how well it works."""
    return describe(runtime.checkpoint)

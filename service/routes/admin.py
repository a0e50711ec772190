"""`POST /admin/reload`: another checkpoint without another process."""

from __future__ import annotations

from fastapi import APIRouter

from service import openapi
from service.dependencies import Serving
from service.schemas import ModelName

router = APIRouter(prefix="/admin", tags=["administration"])


@router.post("/reload", responses=openapi.problems(403, 409))
async def reload(runtime: Serving) -> ModelName:
    """Reads the checkpoint folder again and answers with it from now on.

    The answer comes when the new model has inferred once. Until then, and if it cannot be used, the
    model from before answers.
    """
    checkpoint = await runtime.reload()
    return ModelName(name=checkpoint.name, version=checkpoint.version, sha256=checkpoint.sha256)

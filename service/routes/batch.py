"""`POST /infer/batch`: what stands on the table in each of several pictures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request

from service import openapi
from service.answers import compose, now
from service.clients import connected
from service.dependencies import Serving
from service.engine import Answer
from service.problems import INTERNAL, Problem, document, logger
from service.schemas import BatchItem, BatchResponse
from service.uploads import read_images

router = APIRouter(tags=["inference"])


@router.post(
    "/infer/batch",
    openapi_extra=openapi.INFER_BATCH,
    responses=openapi.problems(400, 408, 413, 415, 422, 503),
)
async def infer_batch(
    request: Request,
    runtime: Serving,
    refine: Annotated[
        int, Query(ge=0, description="Steps of render and compare for each; see POST /infer.")
    ] = 0,
) -> BatchResponse:
    """What stands on the table in each of these pictures, in their order.

    A picture that cannot be used has a problem in its place, and the others are answered.
    """
    runtime.check_ready()
    stamp = now()
    files = await read_images(request, runtime.settings)
    answers = await connected(request, runtime.answers(files, refine=refine))
    return BatchResponse(
        request_id=request.state.request_id,
        stamp=stamp,
        results=[_item(request, runtime, i, answer, stamp) for i, answer in enumerate(answers)],
    )


def _item(
    request: Request, runtime: Serving, index: int, answer: Answer | Exception, stamp: str
) -> BatchItem:
    request_id = f"{request.state.request_id}/{index}"
    if isinstance(answer, Answer):
        response = compose(answer, request_id=request_id, stamp=stamp)
        return BatchItem(status=200, answer=response, problem=None)
    if not isinstance(answer, Problem):
        logger.error("picture %s failed", request_id, exc_info=answer)
        answer = Problem(INTERNAL, "An unexpected error; the server's log tells more.")
    runtime.metrics.rejected.labels(answer.kind.name).inc()
    problem = document(answer, request.url.path, request_id)
    return BatchItem(status=answer.kind.status, answer=None, problem=problem)

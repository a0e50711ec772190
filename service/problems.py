"""Errors as RFC 9457 problem documents: one list of everything that can go wrong, and how it looks.

`type` is a stable name for programs, `detail` says in words what is wrong with this request and
how to mend it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"
NAMESPACE = "urn:airscene:problem:"

logger = logging.getLogger("airscene")


@dataclass(frozen=True)
class Kind:
    """A kind of problem: what stays the same whenever it occurs."""

    name: str
    status: int
    title: str


NO_IMAGE = Kind("no-image", 400, "The request has no image")
MALFORMED = Kind("malformed-body", 400, "The request's body cannot be read")
UNAUTHORISED = Kind("key-needed", 401, "The request needs an API key")
FORBIDDEN = Kind("admin-key-needed", 403, "The request needs an admin's key")
ADMIN_OFF = Kind("admin-off", 403, "This server takes no admin's requests")
NOT_FOUND = Kind("not-found", 404, "There is nothing at this address")
METHOD = Kind("method-not-allowed", 405, "This address does not take this method")
SLOW = Kind("slow-body", 408, "The request's body comes too slowly")
OVERTAKEN = Kind("overtaken", 409, "A later frame was answered first")
DELETED = Kind("camera-deleted", 409, "The camera was deleted meanwhile")
RELOAD = Kind("reload-refused", 409, "The model was not reloaded")
TOO_LARGE = Kind("too-large", 413, "The image has too many bytes")
TOO_MANY_PIXELS = Kind("too-many-pixels", 413, "The image has too many pixels")
MEDIA = Kind("unsupported-media-type", 415, "The body's type is not taken")
NOT_AN_IMAGE = Kind("not-an-image", 422, "The image is not a PNG, JPEG or WebP file")
DAMAGED = Kind("damaged-image", 422, "The image is truncated or damaged")
INVALID = Kind("invalid-request", 422, "The request does not have the expected form")
RATE = Kind("too-often", 429, "The client asks too often")
INTERNAL = Kind("internal-error", 500, "The server failed")
NOT_READY = Kind("not-ready", 503, "The model is not ready")
BUSY = Kind("busy", 503, "Too many requests wait already")
LATE = Kind("late", 503, "The answer took too long")
TOO_MANY_CAMERAS = Kind("too-many-cameras", 503, "There are as many cameras as may be")
STORE = Kind("store-unavailable", 503, "The store of the cameras cannot be reached")

KINDS = (
    *(NO_IMAGE, MALFORMED, UNAUTHORISED, FORBIDDEN, ADMIN_OFF, NOT_FOUND, METHOD, SLOW),
    *(OVERTAKEN, DELETED, RELOAD),
    *(TOO_LARGE, TOO_MANY_PIXELS, MEDIA, NOT_AN_IMAGE, DAMAGED, INVALID, RATE),
    *(INTERNAL, NOT_READY, BUSY, LATE, TOO_MANY_CAMERAS, STORE),
)


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description=f"{NAMESPACE}… : {', '.join(kind.name for kind in KINDS)}")
    title: str
    status: int
    detail: str = Field(description="What is wrong with this request, and how to mend it.")
    instance: str = Field(description="The path that was asked for.")
    request_id: str = Field(description="As in the response's header X-Request-ID.")


class Problem(Exception):
    """Ends a request with a problem document.

    Args:
        kind: of problem.
        detail: what is wrong with this request, and how to mend it.
        headers: of the response.
    """

    def __init__(self, kind: Kind, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.headers = kind, detail, headers


def document(problem: Problem, instance: str, request_id: str) -> ProblemDocument:
    """A problem as its document."""
    kind = problem.kind
    return ProblemDocument(
        type=f"{NAMESPACE}{kind.name}",
        title=kind.title,
        status=kind.status,
        detail=problem.detail,
        instance=instance,
        request_id=request_id,
    )


def respond(request: Request, problem: Problem) -> JSONResponse:
    """The response that tells of a problem."""
    request.state.problem = problem.kind.name  # for the log and the metrics
    content = document(problem, request.url.path, request.state.request_id)
    return _response(content, problem.headers)


def _response(content: ProblemDocument, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(
        content.model_dump(), content.status, headers=dict(headers or {}), media_type=MEDIA_TYPE
    )


def install(app: FastAPI) -> None:
    """Makes every error of `app` a problem document, but for unexpected ones.

    Those go to `service.middleware`, which alone sees what fails outside the routes.
    """

    async def on_problem(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return respond(request, error)

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            detail = f"There is no {request.url.path}; POST a picture to /infer, or read /docs."
            return respond(request, Problem(NOT_FOUND, detail, error.headers))
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            detail = f"{request.url.path} does not take {request.method}; use {allowed}."
            return respond(request, Problem(METHOD, detail, error.headers))
        # What the framework alone can raise. Its words are for people already.
        words = str(error.detail)
        content = ProblemDocument(
            type="about:blank",
            title=words,
            status=error.status_code,
            detail=words,
            instance=request.url.path,
            request_id=request.state.request_id,
        )
        return _response(content, error.headers)

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        details = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        ]
        return respond(request, Problem(INVALID, "; ".join(details)))

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)

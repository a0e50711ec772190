"""`GET /docs`, and `GET /` that leads there."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from service import openapi

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI."""
    return openapi.docs_page(request.app.title)


@router.get("/")
async def root() -> RedirectResponse:
    """The way to the documentation."""
    return RedirectResponse("docs")

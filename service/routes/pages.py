"""`GET /`, the page where one sees what the network sees, and `GET /docs`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from service import openapi
from service.assets import ASSETS

router = APIRouter(include_in_schema=False)

# Everything that the page is made of comes from here, and nothing in it is made from text: no
# answer of a server and no file's name can become markup or a script. `blob:` are photos, and
# textures of meshes.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI."""
    return openapi.docs_page(request.app.title)


@router.api_route("/", methods=["GET", "HEAD"])
async def root(request: Request) -> Response:
    """The page."""
    page = await ASSETS.get_response("page/index.html", request.scope)
    page.headers["Content-Security-Policy"] = POLICY
    page.headers["Permissions-Policy"] = "camera=(self), microphone=(), geolocation=()"
    return page

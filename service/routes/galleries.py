"""`GET /examples` and `GET /figures`: pictures that lie beside the model."""

from __future__ import annotations

from typing import Annotated

import anyio
from fastapi import APIRouter, Path
from starlette.responses import FileResponse, Response

from service import galleries, openapi
from service.dependencies import Serving
from service.galleries import Gallery
from service.problems import NOT_FOUND, Problem
from service.schemas import PictureList, ShownPicture

router = APIRouter(tags=["pictures"])

Name = Annotated[str, Path(description="One that the list names.", max_length=255)]

# A drawing may hold scripts, and whoever opens it alone must not run them.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
_HEADERS = {"Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}


class PictureResponse(FileResponse):
    """A picture, in the form that it has on disk."""

    media_type = "image/*"


@router.get("/examples")
async def list_examples(runtime: Serving) -> PictureList:
    """Photos to try the model with."""
    return await _list(galleries.examples(runtime.settings))


@router.get(
    "/examples/{name}", response_class=PictureResponse, responses=openapi.problems(404, 422)
)
async def get_example(name: Name, runtime: Serving) -> Response:
    """One of these photos."""
    return await _picture(galleries.examples(runtime.settings), name)


@router.get("/figures")
async def list_figures(runtime: Serving) -> PictureList:
    """What was drawn about the model and its training."""
    return await _list(galleries.figures(runtime.settings))


@router.get("/figures/{name}", response_class=PictureResponse, responses=openapi.problems(404, 422))
async def get_figure(name: Name, runtime: Serving) -> Response:
    """One of these drawings."""
    return await _picture(galleries.figures(runtime.settings), name)


async def _list(gallery: Gallery) -> PictureList:
    found = await anyio.to_thread.run_sync(gallery.pictures)
    return PictureList(
        pictures=[ShownPicture(name=name, caption=caption) for name, caption in found.items()]
    )


async def _picture(gallery: Gallery, name: str) -> Response:
    found = await anyio.to_thread.run_sync(gallery.find, name)
    if found is None:
        raise Problem(NOT_FOUND, f"There is no picture {name[:50]!r} here; the list names all.")
    file, media_type = found
    return PictureResponse(file, media_type=media_type, headers=_HEADERS)

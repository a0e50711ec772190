"""`GET /meshes/{class}`: the shape of an object, for viewers and planners."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Path, Request
from starlette.responses import Response

from renderer.glb import object_glb
from renderer.spec import SceneSpec
from service import openapi, problems
from service.assets import compressed
from service.conditional import matches
from service.dependencies import Serving
from service.problems import Problem

router = APIRouter(tags=["inference"])


class GlbResponse(Response):
    """A binary glTF file."""

    media_type = "model/gltf-binary"


@router.get(
    "/meshes/{name}",
    response_class=GlbResponse,
    responses={
        304: {"description": "Still the mesh that If-None-Match names."},
        **openapi.problems(404, 422),
    },
)
async def mesh(
    name: Annotated[str, Path(description="One of `classes` in GET /model.", max_length=128)],
    request: Request,
    runtime: Serving,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The object as binary glTF: metres, y up as glTF has it, its origin where its position is.

    Turned so that z is up (by 90 degrees about x), it stands at an answer's pose.
    """
    checkpoint = runtime.checkpoint
    names = checkpoint.spec.class_names
    if name not in names:
        raise Problem(
            problems.NOT_FOUND, f"This model knows no {name[:50]!r}; it knows {', '.join(names)}."
        )
    content, etag = await anyio.to_thread.run_sync(
        _written, checkpoint.spec, checkpoint.sha256, names.index(name)
    )
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return compressed(GlbResponse(content, headers=headers), request.headers)


@lru_cache(maxsize=64)
def _written(spec: SceneSpec, model: str, identity: int) -> tuple[bytes, str]:
    """A class's file and its entity tag; `model` tells specs of one folder apart."""
    content = object_glb(spec, identity)
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'

"""`/cameras`: send frames, and poll, await or stream the latest scene of each camera."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query
from fastapi.sse import format_sse_event
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service import openapi, problems
from service.answers import compose, now
from service.cameras.live import Cameras, CrowdedError, DeletedError, OvertakenError
from service.cameras.schemas import CameraList, CameraScene, CameraStatus
from service.cameras.store import FullError, Record, UnavailableError
from service.clients import connected
from service.conditional import matches
from service.dependencies import Serving, Watching
from service.formats.detection3d import Detection3DArray, detection3d
from service.problems import Problem
from service.uploads import read_image

router = APIRouter(prefix="/cameras", tags=["cameras"])

KEEP_ALIVE = 15.0  # s of silence after which a stream says that it lives

Name = Annotated[
    str,
    Path(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Letters, digits and . _ - ; at most 64."),
]


# As FastAPI describes streams of its own.
_STREAM: dict[str, Any] = {
    "description": "Events, until the client or the server ends it.",
    "content": {
        "text/event-stream": {
            "itemSchema": {
                "type": "object",
                "required": ["event", "data"],
                "properties": {
                    "event": {"enum": ["scene", "end"]},
                    "data": {"type": "string", "contentMediaType": "application/json"},
                    "id": {"type": "string"},
                },
            }
        }
    },
}


class SceneFormat(StrEnum):
    """Formats in which a camera's scene can be read."""

    SCENE = "scene"
    DETECTION3D = "detection3d"


@router.put(
    "/{name}/frame",
    openapi_extra=openapi.INFER,
    response_model=CameraScene,
    responses=openapi.problems(400, 408, 409, 413, 415, 422, 503),
)
async def put_frame(request: Request, name: Name, runtime: Serving, cameras: Watching) -> Response:
    """Infers the scene in a camera's next frame, and makes it the camera's latest.

    The camera is made by its first frame, and forgotten when none has come for a while.
    """
    runtime.check_ready()
    runtime.check_room()
    stamp = now()
    with _explained(name):
        ticket = await cameras.store.open(name)
    data = await read_image(request, runtime.settings)
    answer = await connected(request, runtime.answer(data))
    composed = compose(answer, request_id=request.state.request_id, stamp=stamp)
    with _explained(name):
        record = await cameras.publish(ticket, composed)
    return Response(record.scene, headers=_headers(record), media_type="application/json")


@router.get(
    "/{name}/scene",
    response_model=CameraScene | Detection3DArray,
    responses={
        304: {"description": "Still the scene that If-None-Match names."},
        **openapi.problems(404, 422, 503),
    },
)
async def get_scene(
    request: Request,
    name: Name,
    runtime: Serving,
    cameras: Watching,
    if_none_match: Annotated[
        str | None, Header(description="The ETag of the scene that the client has.")
    ] = None,
    wait: Annotated[
        float,
        Query(
            ge=0.0,
            allow_inf_nan=False,
            description="Seconds to wait for a scene other than If-None-Match's, or for the first "
            "one; the server has a limit of its own, and answers as it is then.",
        ),
    ] = 0.0,
    form: Annotated[SceneFormat, Query(alias="format")] = SceneFormat.SCENE,
) -> Response:
    """The scene in a camera's latest frame.

    `Scene-Age` is the seconds since that frame arrived.
    """

    def news(record: Record | None) -> bool:
        return record is not None and not matches(if_none_match, _etag(record, form))

    seconds = min(wait, runtime.settings.max_wait)
    with _explained(name):
        waiting = cameras.wait(name, seconds, news=news)
        record = await (connected(request, waiting) if seconds else waiting)
    if record is None:
        raise _unknown(name)
    headers = _headers(record, form)
    if not news(record):
        return Response(status_code=304, headers=headers)
    text = record.scene
    if form is SceneFormat.DETECTION3D:
        text = detection3d(CameraScene.model_validate_json(text)).model_dump_json()
    return Response(text, headers=headers, media_type="application/json")


@router.get(
    "/{name}/events",
    # FastAPI's own class for this begins to answer before it is known whether there is a camera.
    response_class=Response,
    responses={200: _STREAM, **openapi.problems(404, 422, 503)},
)
async def get_events(
    name: Name,
    runtime: Serving,
    cameras: Watching,
    last_event_id: Annotated[
        str | None, Header(description="Sent by browsers when they connect again.")
    ] = None,
) -> Response:
    """Every new scene of a camera, as server-sent events `scene`.

    A slow reader misses scenes, never gets late ones. The stream ends with an event `end` when the
    camera is deleted or the server stops; browsers connect again by themselves.
    """
    with _explained(name):
        if await cameras.store.read(name) is None:
            raise _unknown(name)
    return StreamingResponse(
        _events(cameras, name, last_event_id, lambda: runtime.draining),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.get("", responses=openapi.problems(503))
async def list_cameras(cameras: Watching) -> CameraList:
    """All cameras that have a scene."""
    with _explained(""):
        records = await cameras.store.all()
    return CameraList(
        cameras=[
            CameraStatus(
                name=record.name,
                frame=record.frame,
                stamp=record.stamp,
                age=_age(record),
                objects=record.objects,
            )
            for record in records
        ]
    )


@router.delete("/{name}", status_code=204, responses=openapi.problems(404, 422, 503))
async def delete_camera(name: Name, cameras: Watching) -> None:
    """Forgets a camera. One of its name that is made later starts anew, with ids of its own."""
    with _explained(name):
        known = await cameras.store.delete(name)
    if not known:
        raise _unknown(name)


async def _events(
    cameras: Cameras, name: str, last: str | None, ending: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """The stream's bytes."""

    def news(record: Record | None) -> bool:
        return record is None or _id(record) != last

    while True:
        try:
            record = await cameras.wait(name, KEEP_ALIVE, news=news)
        except (UnavailableError, CrowdedError):
            return  # the client connects again, and is told why it cannot
        if record is None or ending():
            yield format_sse_event(event="end", data_str="{}")
            return
        if news(record):
            last = _id(record)
            yield format_sse_event(event="scene", data_str=record.scene, id=last)
        else:
            yield format_sse_event(comment="still here")


def _id(record: Record) -> str:
    return f"{record.epoch}-{record.frame}"


def _etag(record: Record, form: SceneFormat = SceneFormat.SCENE) -> str:
    suffix = "" if form is SceneFormat.SCENE else f"-{form}"
    return f'"{_id(record)}{suffix}"'


def _age(record: Record) -> float:
    arrived = datetime.fromisoformat(record.stamp)
    return max(0.0, (datetime.now(UTC) - arrived).total_seconds())


def _headers(record: Record, form: SceneFormat = SceneFormat.SCENE) -> dict[str, str]:
    return {
        "ETag": _etag(record, form),
        "Cache-Control": "no-cache",
        # Not in the body, which may not differ under one strong ETag.
        "Scene-Age": f"{_age(record):.3f}",
    }


def _unknown(name: str) -> Problem:
    return Problem(
        problems.NOT_FOUND,
        f"The camera {name!r} has no scene, or has been forgotten; PUT a picture to "
        f"/cameras/{name}/frame.",
    )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Tells of what goes wrong with cameras as a Problem."""
    try:
        yield
    except UnavailableError:
        raise Problem(
            problems.STORE,
            "The store that the servers share cannot be reached; ask again in a few seconds. "
            "POST /infer works meanwhile.",
            {"Retry-After": "2"},
        ) from None
    except FullError:
        raise Problem(
            problems.TOO_MANY_CAMERAS,
            "There are as many cameras as may be (AIRSCENE_MAX_CAMERAS); delete one: "
            "DELETE /cameras/{name}, or wait until one is forgotten.",
            {"Retry-After": "60"},
        ) from None
    except CrowdedError:
        raise Problem(
            problems.BUSY,
            "As many clients wait for scenes as may (AIRSCENE_MAX_WAITING); ask again later, or "
            "without `wait`.",
            {"Retry-After": "5"},
        ) from None
    except OvertakenError:
        raise Problem(
            problems.OVERTAKEN,
            f"A later frame of {name!r} was answered before this one; the camera shows that. Send "
            "a frame when the one before is answered.",
        ) from None
    except DeletedError:
        raise Problem(
            problems.DELETED,
            f"The camera {name!r} was deleted while this frame was worked on; send the next one.",
        ) from None

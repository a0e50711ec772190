"""A typed client of the service, for programs that wait and for programs that `await`.

    with Client("http://127.0.0.1:8000") as client:
        scene = client.infer(Path("photo.jpg").read_bytes())

Refusals that pass (a full queue, a server that starts) and lost connections are tried again; what
remains is a ServiceError with the service's own words. Neither torch nor MuJoCo is imported.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from service.cameras.schemas import CameraList, CameraScene, CameraStatus
from service.formats.detection3d import Detection3DArray
from service.retries import Retries
from service.schemas import InferResponse, ModelReport, SceneDescription

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
Outcome = httpx.Response | httpx.TransportError

NAMESPACE = "urn:airscene:problem:"
VERSION = "v1"
DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(30.0, connect=5.0)  # s
WAIT = 20.0  # s, of one long poll; proxies cut what is silent for a minute
MARGIN = 10.0  # s, that the answer to a long poll may take beyond its wait
PAUSE = 0.5  # s, between polls that the server does not hold


class ServiceError(Exception):
    """The service refused a request, or could not be reached.

    Args:
        message: what is wrong and how to mend it, in the service's words.
        status: of the response; None when there was none.
        kind: the problem's `type`, such as `urn:airscene:problem:not-an-image`.
        request_id: under which the server's log tells more.
    """

    def __init__(
        self, message: str, *, status: int | None = None, kind: str = "", request_id: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.request_id = status, kind, request_id


class Sighting(NamedTuple):
    """A camera's latest scene."""

    scene: CameraScene
    etag: str  # names this very scene
    age: float  # s since its frame arrived, when it was read


@dataclass(frozen=True)
class Ask(Generic[T]):
    """One request, and how its answer is read."""

    read: Callable[[httpx.Response], T]
    method: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)  # as httpx takes them
    may_miss: bool = False  # whether "there is nothing yet" is an answer


class Client:
    """A client that waits for its answers; any thread may use it.

    Args:
        url: of the service.
        key: an API key, where the service wants one.
        timeout: s, for each attempt.
        retries: how often and when to try again.
        transport: of httpx, for tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout: httpx.Timeout | float = TIMEOUT,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retries = retries or Retries()
        self._http = httpx.Client(
            base_url=f"{url.rstrip('/')}/{VERSION}",
            headers=_headers(key),
            timeout=timeout,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def infer(self, image: bytes, *, samples: int = 0, refine: int = 0) -> InferResponse:
        """What stands on the table in a PNG, JPEG or WebP file.

        Args:
            image: the file.
            samples: scenes to draw from the posterior.
            refine: steps of render and compare; 0 for the network's answer as it is.
        """
        return self._send(_infer(image, samples, refine))

    def detections(self, image: bytes) -> Detection3DArray:
        """The same with the fields of ROS 2's `vision_msgs/Detection3DArray`."""
        return self._send(_detections(image))

    def mjcf(self, image: bytes) -> str:
        """The scene as a MuJoCo model that opens and simulates on its own."""
        return self._send(_text("mjcf", image))

    def bop(self, image: bytes, *, scene_id: int = 0, im_id: int = 0) -> str:
        """The scene as rows of BOP results, CSV."""
        return self._send(_text("bop", image, scene_id=scene_id, im_id=im_id))

    def render(
        self, scene: InferResponse | SceneDescription, *, photo: bytes | None = None
    ) -> bytes:
        """A PNG file of a scene, or of how a photo differs from it."""
        return self._send(_render(scene, photo))

    def mesh(self, class_id: str) -> bytes:
        """The GLB file of an object."""
        return self._send(Ask(_content, "GET", f"meshes/{quote(class_id, safe='')}"))

    def model(self) -> ModelReport:
        """The model that answers, and what it expects to see."""
        return self._send(Ask(_as(ModelReport), "GET", "model"))

    def put_frame(self, camera: str, image: bytes) -> CameraScene:
        """Sends a camera's next frame; the scene in it, with ids that last."""
        return self._send(_frame(camera, image))

    def look(self, camera: str, *, etag: str | None = None, wait: float = 0.0) -> Sighting | None:
        """A camera's latest scene; None when it is the one that `etag` names, or there is none.

        Args:
            camera: its name.
            etag: of a sighting from before.
            wait: s that the server may hold the answer until there is another scene.
        """
        return self._send(_look(camera, etag, wait))

    def scenes(self, camera: str, *, wait: float = WAIT) -> Iterator[CameraScene]:
        """Every new scene of a camera, as it comes; what comes too fast for the reader is skipped.

        Raises:
            ServiceError: on the way, when trying again does not help; begin anew when it suits.
        """
        etag = None
        while True:
            asked = time.monotonic()
            sighting = self.look(camera, etag=etag, wait=wait)
            if sighting is not None:
                etag = sighting.etag
                yield sighting.scene
            elif time.monotonic() - asked < PAUSE:
                time.sleep(PAUSE)

    def cameras(self) -> list[CameraStatus]:
        """All cameras that have a scene."""
        return self._send(Ask(_as(CameraList), "GET", "cameras")).cameras

    def delete_camera(self, camera: str) -> None:
        """Forgets a camera and its ids."""
        self._send(Ask(_nothing, "DELETE", _camera(camera)))

    def _send(self, ask: Ask[T]) -> T:
        for attempt in itertools.count(1):
            outcome: Outcome
            try:
                outcome = self._http.request(ask.method, ask.path, **ask.options)
            except httpx.TransportError as error:
                outcome = error
            pause = self._retries.pause(attempt, outcome)
            if pause is None:
                break
            time.sleep(pause)
        return _result(ask, outcome)


class AsyncClient:
    """The same for programs that `await`; its methods are those of `Client`.

    Args:
        url: of the service.
        key: an API key, where the service wants one.
        timeout: s, for each attempt.
        retries: how often and when to try again.
        transport: of httpx, for tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout: httpx.Timeout | float = TIMEOUT,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retries = retries or Retries()
        self._http = httpx.AsyncClient(
            base_url=f"{url.rstrip('/')}/{VERSION}",
            headers=_headers(key),
            timeout=timeout,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes its connections."""
        await self._http.aclose()

    async def infer(self, image: bytes, *, samples: int = 0, refine: int = 0) -> InferResponse:
        """See `Client.infer`."""
        return await self._send(_infer(image, samples, refine))

    async def detections(self, image: bytes) -> Detection3DArray:
        """See `Client.detections`."""
        return await self._send(_detections(image))

    async def mjcf(self, image: bytes) -> str:
        """See `Client.mjcf`."""
        return await self._send(_text("mjcf", image))

    async def bop(self, image: bytes, *, scene_id: int = 0, im_id: int = 0) -> str:
        """See `Client.bop`."""
        return await self._send(_text("bop", image, scene_id=scene_id, im_id=im_id))

    async def render(
        self, scene: InferResponse | SceneDescription, *, photo: bytes | None = None
    ) -> bytes:
        """See `Client.render`."""
        return await self._send(_render(scene, photo))

    async def mesh(self, class_id: str) -> bytes:
        """See `Client.mesh`."""
        return await self._send(Ask(_content, "GET", f"meshes/{quote(class_id, safe='')}"))

    async def model(self) -> ModelReport:
        """See `Client.model`."""
        return await self._send(Ask(_as(ModelReport), "GET", "model"))

    async def put_frame(self, camera: str, image: bytes) -> CameraScene:
        """See `Client.put_frame`."""
        return await self._send(_frame(camera, image))

    async def look(
        self, camera: str, *, etag: str | None = None, wait: float = 0.0
    ) -> Sighting | None:
        """See `Client.look`."""
        return await self._send(_look(camera, etag, wait))

    async def scenes(self, camera: str, *, wait: float = WAIT) -> AsyncIterator[CameraScene]:
        """See `Client.scenes`."""
        etag = None
        while True:
            asked = time.monotonic()
            sighting = await self.look(camera, etag=etag, wait=wait)
            if sighting is not None:
                etag = sighting.etag
                yield sighting.scene
            elif time.monotonic() - asked < PAUSE:
                await asyncio.sleep(PAUSE)

    async def cameras(self) -> list[CameraStatus]:
        """See `Client.cameras`."""
        return (await self._send(Ask(_as(CameraList), "GET", "cameras"))).cameras

    async def delete_camera(self, camera: str) -> None:
        """See `Client.delete_camera`."""
        await self._send(Ask(_nothing, "DELETE", _camera(camera)))

    async def _send(self, ask: Ask[T]) -> T:
        for attempt in itertools.count(1):
            outcome: Outcome
            try:
                outcome = await self._http.request(ask.method, ask.path, **ask.options)
            except httpx.TransportError as error:
                outcome = error
            pause = self._retries.pause(attempt, outcome)
            if pause is None:
                break
            await asyncio.sleep(pause)
        return _result(ask, outcome)


# --- the requests, and how their answers are read ---------------------------------------------

_BYTES = {"Content-Type": "application/octet-stream"}


def _infer(image: bytes, samples: int, refine: int) -> Ask[InferResponse]:
    params = {"samples": samples, "refine": refine}
    options = {"content": image, "headers": _BYTES, "params": params}
    return Ask(_as(InferResponse), "POST", "infer", options)


def _detections(image: bytes) -> Ask[Detection3DArray]:
    options = {"content": image, "headers": _BYTES, "params": {"format": "detection3d"}}
    return Ask(_as(Detection3DArray), "POST", "infer", options)


def _text(form: str, image: bytes, **more: int) -> Ask[str]:
    options = {"content": image, "headers": _BYTES, "params": {"format": form, **more}}
    return Ask(lambda response: response.text, "POST", "infer", options)


def _render(scene: InferResponse | SceneDescription, photo: bytes | None) -> Ask[bytes]:
    text = scene.model_dump_json(include={"camera", "objects"}).encode()
    files = {"scene": ("scene.json", text, "application/json")}
    if photo is not None:
        files["image"] = ("photo", photo, "application/octet-stream")
    return Ask(_content, "POST", "render", {"files": files})


def _frame(camera: str, image: bytes) -> Ask[CameraScene]:
    options = {"content": image, "headers": _BYTES}
    return Ask(_as(CameraScene), "PUT", f"{_camera(camera)}/frame", options)


def _look(camera: str, etag: str | None, wait: float) -> Ask[Sighting | None]:
    def read(response: httpx.Response) -> Sighting | None:
        if response.status_code != httpx.codes.OK:
            return None
        scene = CameraScene.model_validate_json(response.content)
        return Sighting(scene, response.headers["etag"], float(response.headers["scene-age"]))

    options: dict[str, Any] = {"headers": {"If-None-Match": etag} if etag else {}}
    if wait:
        options |= {"params": {"wait": wait}, "timeout": httpx.Timeout(wait + MARGIN, connect=5.0)}
    return Ask(read, "GET", f"{_camera(camera)}/scene", options, may_miss=True)


def _camera(name: str) -> str:
    return f"cameras/{quote(name, safe='')}"


def _as(model: type[Model]) -> Callable[[httpx.Response], Model]:
    return lambda response: model.model_validate_json(response.content)


def _content(response: httpx.Response) -> bytes:
    return response.content


def _nothing(response: httpx.Response) -> None:
    return None


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _result(ask: Ask[T], outcome: Outcome) -> T:
    """What was asked for, or a ServiceError."""
    if isinstance(outcome, httpx.TransportError):
        request = outcome.request
        raise ServiceError(
            f"no answer from {request.url.copy_with(path='/', query=None)} "
            f"({str(outcome) or type(outcome).__name__}); is the service running? (make serve)"
        ) from outcome
    error = _error(outcome)
    missing = ask.may_miss and error.kind == f"{NAMESPACE}not-found"
    if outcome.is_success or outcome.status_code == httpx.codes.NOT_MODIFIED or missing:
        return ask.read(outcome)
    raise error


def _error(response: httpx.Response) -> ServiceError:
    document: dict[str, Any] = {}
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        document = response.json()
    return ServiceError(
        document.get("detail") or f"{response.url} answered {response.status_code}",
        status=response.status_code,
        kind=document.get("type", ""),
        request_id=response.headers.get("x-request-id", ""),
    )

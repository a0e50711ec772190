"""The typed client: against the real service, and against answers made up to be unpleasant."""

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import mujoco
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.client import AsyncClient, Client, ServiceError
from service.retries import Retries, retry_after
from service.settings import Settings

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
PHOTO = (PHOTOS / "table-06.png").read_bytes()
OTHER = (PHOTOS / "table-09.jpg").read_bytes()
KEY = "a-key-for-the-tests-of-clients"
QUICK = Retries(attempts=3, first=0.01)


@pytest.fixture(scope="module")
def url(serve: Serve) -> Iterator[str]:
    with serve(create_app(Settings(api_keys=f"tests:{KEY}", max_wait=1.0))) as client:
        while client.get("/readyz").status_code == 503:
            time.sleep(0.02)
        yield str(client.base_url)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_everything_that_can_be_asked(url: str) -> None:
    with Client(url, key=KEY) as client:
        scene = client.infer(PHOTO, samples=2)
        assert scene.count.value == 3
        assert len(scene.samples) == 2
        assert scene.timing_ms.refine == 0 < client.infer(PHOTO, refine=1).timing_ms.refine
        assert len(client.detections(PHOTO).detections) == 3
        mujoco.MjModel.from_xml_string(client.mjcf(PHOTO))
        assert client.bop(PHOTO, im_id=9).splitlines()[1].startswith("0,9,")
        for drawn in (
            client.render(scene),
            client.render(scene, photo=PHOTO),
            client.render(scene.samples[0]),
        ):
            assert drawn.startswith(b"\x89PNG")
        assert client.mesh("cup").startswith(b"glTF")
        assert client.model().count_max == 3
        assert client.put_frame("everything", PHOTO).source.frame == 1
        assert [each.name for each in client.cameras()] == ["everything"]
        client.delete_camera("everything")
        assert client.cameras() == []


def test_the_same_for_those_who_await(url: str) -> None:
    async def test() -> None:
        async with AsyncClient(url, key=KEY) as client:
            scenes = await asyncio.gather(*(client.infer(PHOTO) for _ in range(4)))
            assert [scene.count.value for scene in scenes] == [3] * 4
            assert len((await client.detections(PHOTO)).detections) == 3
            mujoco.MjModel.from_xml_string(await client.mjcf(PHOTO))
            assert (await client.bop(PHOTO)).startswith("scene_id,")
            assert (await client.render(scenes[0], photo=PHOTO)).startswith(b"\x89PNG")
            assert (await client.mesh("cup")).startswith(b"glTF")
            assert (await client.model()).count_max == 3
            watched = client.scenes("awaited")
            first = asyncio.ensure_future(anext(watched))  # before there is a camera
            await asyncio.sleep(0.1)
            await client.put_frame("awaited", PHOTO)
            assert (await first).source.frame == 1
            await client.put_frame("awaited", OTHER)
            assert (await anext(watched)).source.frame == 2
            assert [each.name for each in await client.cameras()] == ["awaited"]
            await client.delete_camera("awaited")

    asyncio.run(test())


def test_watching_a_camera(url: str) -> None:
    with Client(url, key=KEY) as client:
        assert client.look("watched") is None
        client.put_frame("watched", PHOTO)
        sighting = client.look("watched")
        assert sighting is not None
        assert sighting.age >= 0
        assert client.look("watched", etag=sighting.etag) is None
        started = time.monotonic()
        assert client.look("watched", etag=sighting.etag, wait=0.4) is None
        assert time.monotonic() - started > 0.3
        watched = client.scenes("watched", wait=0.2)
        assert next(watched).source.frame == 1
        client.put_frame("watched", PHOTO)
        client.put_frame("watched", OTHER)
        assert next(watched).source.frame == 3  # the latest; what came between is skipped
        client.delete_camera("watched")


def test_a_refusal_brings_the_services_words(url: str) -> None:
    with Client(url, key=KEY, retries=QUICK) as client:
        with pytest.raises(ServiceError, match="convert it") as caught:
            client.infer(b"GIF89a")
        assert caught.value.status == 422
        assert caught.value.kind == "urn:airscene:problem:not-an-image"
        assert len(caught.value.request_id) == 32
        with pytest.raises(ServiceError, match="knows no 'fork'"):
            client.mesh("fork")
    with (
        Client(url, retries=QUICK) as client,
        pytest.raises(ServiceError, match="brings no key") as caught,
    ):
        client.infer(PHOTO)
    assert caught.value.status == 401


def test_nobody_there() -> None:
    with (
        Client("http://127.0.0.1:9", retries=QUICK) as client,
        pytest.raises(ServiceError, match="is the service running") as caught,
    ):
        client.model()
    assert caught.value.status is None


class Script:
    """Answers requests one after the other as it was told to, and remembers when."""

    def __init__(self, *outcomes: int | dict[str, str] | Exception) -> None:
        self.outcomes, self.times = list(outcomes), [time.monotonic()]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.times.append(time.monotonic())
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, dict):
            return httpx.Response(503, headers=outcome)
        return httpx.Response(outcome, json={"cameras": []})

    @property
    def pauses(self) -> list[float]:
        times = self.times[1:]
        return [later - sooner for sooner, later in itertools.pairwise(times)]


def ask(script: Script, retries: Retries) -> None:
    async def later() -> None:
        transport = httpx.MockTransport(Script(*first))
        async with AsyncClient(retries=retries, transport=transport) as client:
            assert await client.cameras() == []

    first = list(script.outcomes)
    with Client(retries=retries, transport=httpx.MockTransport(script)) as client:
        assert client.cameras() == []
    asyncio.run(later())


def test_what_passes_is_tried_again() -> None:
    script = Script(503, httpx.ConnectError("refused"), 429, httpx.ReadTimeout("slow"), 200)
    ask(script, Retries(attempts=5, first=0.01))
    assert script.outcomes == []


def test_pauses_grow_to_a_limit_and_differ_between_clients() -> None:
    def pauses(where: float) -> list[float | None]:
        retries = Retries(attempts=5, first=0.2, longest=1.0, jitter=lambda: where)
        return [retries.pause(attempt, httpx.Response(503)) for attempt in range(1, 6)]

    assert pauses(0.0) == pytest.approx([0.1, 0.2, 0.4, 0.5, None])
    assert pauses(1.0) == pytest.approx([0.2, 0.4, 0.8, 1.0, None])


def test_the_servers_wish_counts() -> None:
    script = Script({"Retry-After": "1"}, 200)
    with Client(retries=QUICK, transport=httpx.MockTransport(script)) as client:
        client.cameras()
    assert script.pauses[0] >= 1.0


@pytest.mark.parametrize("outcome", [400, 401, 404, 409, 422, 500, {"Retry-After": "3600"}])
def test_what_stays_is_not_tried_again(outcome: int | dict[str, str]) -> None:
    script = Script(outcome, 200)
    with (
        Client(retries=QUICK, transport=httpx.MockTransport(script)) as client,
        pytest.raises(ServiceError),
    ):
        client.cameras()
    assert script.outcomes == [200]


def test_it_gives_up() -> None:
    script = Script(503, 503, 503, 200)
    with (
        Client(retries=QUICK, transport=httpx.MockTransport(script)) as client,
        pytest.raises(ServiceError) as caught,
    ):
        client.cameras()
    assert caught.value.status == 503
    assert script.outcomes == [200]


def test_another_servers_404_is_no_missing_camera() -> None:
    script = Script(404)
    with (
        Client(transport=httpx.MockTransport(script)) as client,
        pytest.raises(ServiceError, match="answered 404"),
    ):
        client.look("front")


def test_retry_after() -> None:
    def given(value: str) -> float | None:
        return retry_after(httpx.Response(503, headers={"Retry-After": value}))

    assert given("7") == 7.0
    assert given("soon") is None
    assert given("") is None
    soon = datetime.now(UTC) + timedelta(seconds=30)
    assert given(format_datetime(soon, usegmt=True)) == pytest.approx(30, abs=3)
    assert given("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_it_is_light() -> None:
    """A robot's computer may have neither torch nor MuJoCo, and starts fast."""
    code = (
        "import sys, service.client\n"
        "heavy = {'torch', 'mujoco', 'warp', 'trimesh', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

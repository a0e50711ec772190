"""Cameras over real HTTP, with the shipped model: frames in; poll, await or stream scenes."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.cameras.schemas import CameraList, CameraScene
from service.problems import NAMESPACE
from service.settings import Settings

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
BUSY_TABLE = (PHOTOS / "table-06.png").read_bytes()
OTHER_TABLE = (PHOTOS / "table-09.jpg").read_bytes()


def ready(client: httpx.Client) -> httpx.Client:
    while client.get("/readyz").status_code == 503:
        time.sleep(0.02)
    return client


@pytest.fixture(scope="module")
def memory_client(serve: Serve) -> Iterator[httpx.Client]:
    with serve(create_app(Settings(max_cameras=3, max_waiting=4))) as client:
        yield ready(client)


@pytest.fixture(params=["memory", "redis"])
def cameras(request: pytest.FixtureRequest, serve: Serve) -> Iterator[httpx.Client]:
    """A client of a service without cameras, which keeps them in memory or in Redis."""
    if request.param == "memory":
        client = request.getfixturevalue("memory_client")
        for camera in client.get("/cameras").json()["cameras"]:
            client.delete(f"/cameras/{camera['name']}")
        yield client
    else:
        url = request.getfixturevalue("redis_server").url
        with serve(create_app(Settings(redis_url=url, max_cameras=3, max_waiting=4))) as client:
            yield ready(client)


def put(client: httpx.Client, data: bytes = BUSY_TABLE, name: str = "front") -> httpx.Response:
    response = client.put(f"/v1/cameras/{name}/frame", content=data)
    assert response.status_code == 200, response.text
    return response


@contextmanager
def frame_soon(client: httpx.Client) -> Iterator[None]:
    """Sends another frame in a moment, from elsewhere."""

    def send() -> None:
        with httpx.Client(base_url=client.base_url, timeout=60, trust_env=False) as own:
            put(own)

    later = threading.Timer(0.3, send)
    later.start()
    yield
    later.join()


def check_problem(response: httpx.Response, status: int, name: str, says: str) -> None:
    assert response.status_code == status
    document = response.json()
    assert document["type"] == NAMESPACE + name
    assert re.search(says, document["detail"])


def test_a_frame_becomes_the_cameras_scene(cameras: httpx.Client) -> None:
    answered = put(cameras)
    scene = CameraScene.model_validate_json(answered.content)
    assert scene.source.model_dump() == {"name": "front", "frame": 1}
    assert len(scene.objects) == scene.count.value == 3
    read = cameras.get("/cameras/front/scene")
    assert read.content == answered.content
    assert read.headers["content-type"] == "application/json"
    assert read.headers["cache-control"] == "no-cache"
    assert 0 <= float(read.headers["scene-age"]) < 60
    one = cameras.post("/infer", content=BUSY_TABLE).json()
    assert [each.pose.position.x for each in scene.objects] == pytest.approx(
        [each["pose"]["position"]["x"] for each in one["objects"]]
    )


def test_etag_and_304(cameras: httpx.Client) -> None:
    tag = put(cameras).headers["etag"]
    assert re.fullmatch(r'"[^"]+"', tag)  # strong
    for given in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        response = cameras.get("/cameras/front/scene", headers={"If-None-Match": given})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
        assert "scene-age" in response.headers
    for given in ('"x"', "", tag.strip('"')):
        response = cameras.get("/cameras/front/scene", headers={"If-None-Match": given})
        assert response.status_code == 200
    # Every frame is news, even when it shows the same.
    assert put(cameras).headers["etag"] != tag
    assert cameras.get("/cameras/front/scene", headers={"If-None-Match": tag}).status_code == 200


def test_objects_keep_their_ids(cameras: httpx.Client) -> None:
    def ids(response: httpx.Response) -> list[tuple[str, int]]:
        return [(item["class_id"], item["id"]) for item in response.json()["objects"]]

    first, second = ids(put(cameras)), ids(put(cameras))
    assert first == second
    assert {number for _, number in first} == {0, 1, 2}
    other = ids(put(cameras, OTHER_TABLE))
    assert {number for _, number in other}.isdisjoint({0, 1, 2})
    again = ids(put(cameras))
    assert {number for _, number in again}.isdisjoint({0, 1, 2})  # never given again
    assert {number for _, number in ids(put(cameras, name="back"))} == {0, 1, 2}


def test_as_ros_detections(cameras: httpx.Client) -> None:
    put(cameras)
    address = "/cameras/front/scene?format=detection3d"
    response = cameras.get(address)
    message = response.json()
    assert message["header"]["frame_id"] == "table"
    assert [each["id"] for each in message["detections"]] == ["0", "1", "2"]
    # Another representation, another tag.
    tag = response.headers["etag"]
    assert tag != cameras.get("/cameras/front/scene").headers["etag"]
    assert cameras.get(address, headers={"If-None-Match": tag}).status_code == 304
    check_problem(
        cameras.get("/cameras/front/scene?format=xml"), 422, "invalid-request", "'detection3d'"
    )


def test_a_long_poll_ends_with_news(cameras: httpx.Client) -> None:
    tag = put(cameras).headers["etag"]
    started = time.monotonic()
    response = cameras.get("/cameras/front/scene?wait=0.3", headers={"If-None-Match": tag})
    assert response.status_code == 304
    assert time.monotonic() - started > 0.25
    with frame_soon(cameras):
        response = cameras.get("/cameras/front/scene?wait=20", headers={"If-None-Match": tag})
    assert response.status_code == 200
    assert response.json()["source"]["frame"] == 2
    # Without a tag, whatever there is comes at once.
    assert cameras.get("/cameras/front/scene?wait=20").status_code == 200


def test_a_poller_may_come_before_the_camera(cameras: httpx.Client) -> None:
    with frame_soon(cameras):
        response = cameras.get("/cameras/front/scene?wait=20")
    assert response.status_code == 200


def events(stream: httpx.Response) -> Iterator[dict[str, str]]:
    """The events of a stream, as a browser takes it apart."""
    event: dict[str, str] = {}
    for line in stream.iter_lines():
        if not line:
            if event:
                yield event
            event = {}
        elif not line.startswith(":"):
            field, _, value = line.partition(": ")
            event[field] = value


def test_events(cameras: httpx.Client) -> None:
    put(cameras)
    with cameras.stream("GET", "/cameras/front/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["x-accel-buffering"] == "no"
        found = events(stream)
        first = next(found)
        assert first["event"] == "scene"
        assert json.loads(first["data"])["source"]["frame"] == 1
        with httpx.Client(base_url=cameras.base_url, timeout=60, trust_env=False) as own:
            put(own, OTHER_TABLE)
            second = next(found)
            assert json.loads(second["data"])["source"]["frame"] == 2
            assert second["id"] != first["id"]
            own.delete("/cameras/front")
        assert next(found)["event"] == "end"
        assert next(found, None) is None
    # A browser that lost its connection is not sent again what it has.
    tag = put(cameras).headers["etag"].strip('"')
    with (
        cameras.stream("GET", "/cameras/front/events", headers={"Last-Event-ID": tag}) as stream,
        httpx.Client(base_url=cameras.base_url, timeout=60, trust_env=False) as own,
    ):
        put(own)
        assert json.loads(next(events(stream))["data"])["source"]["frame"] == 2


def test_list_and_delete(cameras: httpx.Client) -> None:
    assert cameras.get("/cameras").json() == {"cameras": []}
    for name in ("b.2", "a-1"):
        put(cameras, name=name)
    put(cameras, name="a-1")
    listed = CameraList.model_validate_json(cameras.get("/cameras").content).cameras
    assert [(each.name, each.frame, each.objects) for each in listed] == [
        ("a-1", 2, 3),
        ("b.2", 1, 3),
    ]
    assert 0 <= listed[0].age < 60
    response = cameras.delete("/cameras/a-1")
    assert (response.status_code, response.content) == (204, b"")
    assert [each["name"] for each in cameras.get("/cameras").json()["cameras"]] == ["b.2"]
    check_problem(cameras.delete("/cameras/a-1"), 404, "not-found", "PUT a picture to")
    check_problem(cameras.get("/cameras/a-1/scene"), 404, "not-found", "'a-1' has no scene")
    check_problem(cameras.get("/cameras/a-1/events"), 404, "not-found", "'a-1' has no scene")


def test_a_camera_that_is_made_again_is_news(cameras: httpx.Client) -> None:
    tag = put(cameras).headers["etag"]
    cameras.delete("/cameras/front")
    assert put(cameras).headers["etag"] != tag


def test_one_camera_too_many(cameras: httpx.Client) -> None:
    for name in "abc":
        put(cameras, name=name)
    response = cameras.put("/cameras/d/frame", content=BUSY_TABLE)
    check_problem(response, 503, "too-many-cameras", "delete one")
    assert response.headers["retry-after"] == "60"


@pytest.mark.parametrize("name", ["a b", "a" * 65, "ä", "a%2fb"])
def test_names(memory_client: httpx.Client, name: str) -> None:
    response = memory_client.put(f"/cameras/{name}/frame", content=BUSY_TABLE)
    assert response.status_code in (404, 422)
    assert response.headers["content-type"] == "application/problem+json"


def test_a_frame_that_is_no_image(cameras: httpx.Client) -> None:
    check_problem(cameras.put("/cameras/x/frame", content=b"\0"), 422, "not-an-image", "convert")
    check_problem(cameras.put("/cameras/x/frame"), 400, "no-image", "empty")
    check_problem(cameras.get("/cameras/x/scene"), 404, "not-found", "has no scene")
    # The scene before stays.
    put(cameras)
    cameras.put("/cameras/front/frame", content=b"\0")
    assert cameras.get("/cameras/front/scene").json()["source"]["frame"] == 1


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "x"])
def test_waits_that_are_none(memory_client: httpx.Client, wait: str) -> None:
    response = memory_client.get(f"/cameras/front/scene?wait={wait}")
    check_problem(response, 422, "invalid-request", "query.wait")


def test_so_many_may_wait(memory_client: httpx.Client) -> None:
    tag = put(memory_client).headers["etag"]
    codes: list[int] = []

    def poll() -> None:
        headers = {"If-None-Match": tag}
        with httpx.Client(base_url=memory_client.base_url, timeout=60, trust_env=False) as own:
            codes.append(own.get("/cameras/front/scene?wait=2", headers=headers).status_code)

    threads = [threading.Thread(target=poll) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [304] * 4 + [503] * 2


def test_whoever_waits_leaves_when_the_server_ends(serve: Serve) -> None:
    app = create_app(Settings())
    with serve(app) as client:
        tag = put(ready(client)).headers["etag"]
        found: list[Any] = []

        def poll() -> None:
            with httpx.Client(base_url=client.base_url, timeout=60, trust_env=False) as own:
                response = own.get("/cameras/front/scene?wait=30", headers={"If-None-Match": tag})
                found.append(response.status_code)

        def watch() -> None:
            with (
                httpx.Client(base_url=client.base_url, timeout=60, trust_env=False) as own,
                own.stream("GET", "/cameras/front/events") as stream,
            ):
                found.extend(event["event"] for event in events(stream))

        threads = [threading.Thread(target=poll), threading.Thread(target=watch)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        started = time.monotonic()
        app.state.runtime.draining = True
        for thread in threads:
            thread.join()
        assert time.monotonic() - started < 5
        assert sorted(map(str, found)) == ["304", "end", "scene"]


def test_redis_comes_and_goes(serve: Serve, redis_server: Any) -> None:
    redis_server.stop()  # it is not there yet when the service starts
    with serve(create_app(Settings(redis_url=redis_server.url))) as client:
        ready(client)
        for response in (
            client.put("/cameras/front/frame", content=BUSY_TABLE),
            client.get("/cameras/front/scene"),
            client.get("/cameras/front/events"),
            client.get("/cameras"),
            client.delete("/cameras/front"),
        ):
            check_problem(response, 503, "store-unavailable", "POST /infer works meanwhile")
            assert int(response.headers["retry-after"]) > 0
        assert client.post("/infer", content=BUSY_TABLE).status_code == 200
        for _ in range(2):
            redis_server.start()
            until(lambda: client.put("/cameras/front/frame", content=BUSY_TABLE))
            assert client.get("/cameras/front/scene").status_code == 200
            tag = client.get("/cameras/front/scene").headers["etag"]
            threading.Timer(0.3, redis_server.stop).start()
            response = client.get("/cameras/front/scene?wait=20", headers={"If-None-Match": tag})
            check_problem(response, 503, "store-unavailable", "ask again")
        assert client.get("/readyz").status_code == 200


def until(attempt: Callable[[], httpx.Response]) -> httpx.Response:
    while True:
        response = attempt()
        if response.status_code != 503:
            assert response.status_code == 200
            return response
        time.sleep(0.05)


def test_replicas_share_a_camera(serve: Serve, redis_server: Any) -> None:
    settings = Settings(redis_url=redis_server.url)
    with serve(create_app(settings)) as one, serve(create_app(settings)) as other:
        ready(one), ready(other)
        tag = put(one).headers["etag"]
        assert other.get("/cameras/front/scene").headers["etag"] == tag
        with frame_soon(one):
            news = other.get("/cameras/front/scene?wait=20", headers={"If-None-Match": tag})
        assert news.json()["source"]["frame"] == 2
        assert [item["id"] for item in put(other).json()["objects"]] == [0, 1, 2]

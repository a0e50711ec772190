"""Too much, too slow, and gone: what a service must bear, over real HTTP."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service import server
from service.app import create_app
from service.settings import Settings

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]
Until = Callable[[Callable[[], bool]], None]
Start = Callable[..., AbstractContextManager[httpx.Client]]

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def start(canned: Any, settings: Settings, serve: Serve, until: Until) -> Start:
    """The service with other settings and an engine that does as told."""

    @contextmanager
    def start(**changes: Any) -> Iterator[httpx.Client]:
        changed = settings.model_copy(update=changes)
        with serve(create_app(changed, load=lambda: canned)) as client:
            until(lambda: client.get("/readyz").status_code == 200)
            try:
                yield client
            finally:
                canned.open.set()

    return start


def connect(client: httpx.Client) -> socket.socket:
    line = socket.create_connection((client.base_url.host, client.base_url.port or 0))
    line.settimeout(30)
    return line


def head(length: int) -> bytes:
    return (
        "POST /v1/infer HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_a_full_queue_refuses_at_once(
    start: Start, canned: Any, photo_bytes: bytes, until: Until
) -> None:
    with start(queue_size=3, batch_size=1) as client:
        canned.open.clear()
        results: list[httpx.Response] = []

        def post() -> None:
            results.append(client.post("/infer", content=photo_bytes, headers=PNG))

        threads = [threading.Thread(target=post) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: metric(client, "airscene_queue_depth ") == 3)
        for path in ("/infer", "/v1/infer"):
            response = client.post(path, content=photo_bytes, headers=PNG)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["type"].endswith("busy")
        assert client.get("/readyz").status_code == 200  # busy is not broken
        canned.open.set()
        for thread in threads:
            thread.join()
        assert [result.status_code for result in results] == [200, 200, 200]
        assert metric(client, "airscene_queue_depth ") == 0
        assert client.post("/infer", content=photo_bytes, headers=PNG).status_code == 200


def test_overload_gives_answers_and_refusals_only(
    start: Start, canned: Any, photo_bytes: bytes
) -> None:
    """Far more clients than places, none of whom waits: some are answered, the rest refused."""

    async def flood(url: httpx.URL) -> Counter[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=url, timeout=60, trust_env=False, limits=limits
        ) as client:
            posts = [client.post("/v1/infer", content=photo_bytes, headers=PNG) for _ in range(150)]
            return Counter(answer.status_code for answer in await asyncio.gather(*posts))

    with start(queue_size=8, batch_size=4) as client:
        canned.seconds = 0.05
        statuses = asyncio.run(flood(client.base_url))
        assert set(statuses) == {200, 503}
        assert statuses[200] >= 8
        canned.seconds = 0.0
        assert client.post("/infer", content=photo_bytes, headers=PNG).status_code == 200
    assert max(canned.batches) <= 4
    assert sum(canned.batches) == statuses[200] + 1


def test_bodies_that_are_being_received_are_counted(
    start: Start, photo_bytes: bytes, until: Until
) -> None:
    with start(max_uploads=1) as client, connect(client) as slow:
        slow.sendall(head(len(photo_bytes)) + photo_bytes[:100])
        until(lambda: metric(client, "airscene_uploads ") == 1)
        response = client.post("/infer", content=photo_bytes)
        assert response.status_code == 503
        assert response.json()["type"].endswith("busy")
        assert client.get("/model").status_code == 200
        slow.sendall(photo_bytes[100:])
        assert slow.recv(12) == b"HTTP/1.1 200"
        until(lambda: metric(client, "airscene_uploads ") == 0)
        assert client.post("/infer", content=photo_bytes).status_code == 200


def test_a_queue_that_takes_too_long_is_full(
    start: Start, canned: Any, photo_bytes: bytes, until: Until
) -> None:
    """However few wait in it: the answers would be about the past."""
    with start(queue_seconds=0.6, batch_size=1) as client:
        canned.seconds = 0.45
        assert client.post("/infer", content=photo_bytes).status_code == 200
        canned.open.clear()
        lines = [connect(client) for _ in range(4)]
        for line in lines:
            line.sendall(head(len(photo_bytes)) + photo_bytes)
        until(lambda: metric(client, 'airscene_rejected_total{problem="busy"}') == 2)
        canned.open.set()
        answers = [line.recv(100_000) for line in lines]
        assert sorted(answer[9:12] for answer in answers) == [b"200", b"200", b"503", b"503"]
        for line in lines:
            line.close()


def test_a_body_that_comes_too_slowly(start: Start) -> None:
    with start(max_seconds=0.2) as client, connect(client) as line:
        line.sendall(head(1000) + b"slow")
        answer = b""
        while chunk := line.recv(4096):  # until the server ends the connection
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer.lower()
        assert b"slow-body" in answer


def test_a_header_that_comes_too_slowly(
    start: Start, monkeypatch: pytest.MonkeyPatch, photo_bytes: bytes
) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.2)
    with start() as client:
        for sent in (b"", b"POST /infer HTTP/1.1\r\nHost:"):
            with connect(client) as line:
                line.sendall(sent)
                assert line.recv(100) == b""
        with connect(client) as line:  # the clock is of the header alone, each one's
            for _ in range(2):
                line.sendall(head(len(photo_bytes)))
                time.sleep(0.3)
                line.sendall(photo_bytes)
                assert line.recv(100_000).startswith(b"HTTP/1.1 200")
                time.sleep(0.3)


def test_a_header_without_end(start: Start) -> None:
    with start() as client, connect(client) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\n")
        answer = b""
        try:
            for _ in range(100):
                line.sendall(b"X: " + b"x" * 4096 + b"\r\n")
            answer = line.recv(100)
        except ConnectionError:
            return  # cut off while we were sending: as good
        assert answer.startswith((b"HTTP/1.1 400", b""))


def test_an_answer_that_comes_too_late(start: Start, canned: Any, photo_bytes: bytes) -> None:
    with start(max_seconds=0.3) as client:
        canned.open.clear()
        response = client.post("/infer", content=photo_bytes, headers=PNG)
        assert response.status_code == 503
        assert response.json()["type"].endswith("late")
        assert response.headers["retry-after"] == "1"


def test_a_picture_that_waited_too_long_is_late(
    start: Start, canned: Any, photo_bytes: bytes, until: Until
) -> None:
    """Longer than was to be expected when it was let in: the engine was held up."""
    with start(queue_seconds=0.05, batch_size=1) as client:
        canned.open.clear()
        answers: list[httpx.Response] = []

        def post() -> None:
            answers.append(client.post("/infer", content=photo_bytes, headers=PNG))

        threads = [threading.Thread(target=post) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: metric(client, "airscene_queue_depth ") == 2)
        until(lambda: len(canned.batches) == 1)
        time.sleep(0.3)
        canned.open.set()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200, 503]
        (late,) = (answer for answer in answers if answer.status_code == 503)
        assert late.json()["type"].endswith("late") and late.headers["retry-after"] == "1"


def test_nobody_works_for_a_client_that_has_gone(
    start: Start, canned: Any, photo_bytes: bytes, until: Until
) -> None:
    with start(batch_size=8) as client:
        canned.open.clear()
        with connect(client) as first:
            first.sendall(head(len(photo_bytes)) + photo_bytes)
            until(lambda: len(canned.batches) == 1)
            for _ in range(4):
                with connect(client) as line:
                    line.sendall(head(len(photo_bytes)) + photo_bytes)
                    until(lambda: metric(client, "airscene_queue_depth ") == 2)
                # Gone: its place is free again before anything was inferred.
                until(lambda: metric(client, "airscene_queue_depth ") == 1)
            canned.open.set()
            assert first.recv(12) == b"HTTP/1.1 200"
        assert client.post("/infer", content=photo_bytes, headers=PNG).status_code == 200
        assert metric(client, 'airscene_requests_total{method="POST",route="/infer",status="499"')
    assert canned.batches == [1, 1]


def test_a_hung_engine_is_no_longer_ready(
    start: Start, canned: Any, photo_bytes: bytes, until: Until
) -> None:
    with start(stall_seconds=0.1, max_seconds=0.2) as client:
        canned.open.clear()
        assert client.post("/infer", content=photo_bytes, headers=PNG).status_code == 503
        until(lambda: client.get("/readyz").status_code == 503)
        assert "has not answered" in client.get("/readyz").json()["detail"]
        response = client.post("/infer", content=photo_bytes, headers=PNG)
        assert response.status_code == 503
        assert response.json()["type"].endswith("not-ready")
        assert client.get("/healthz").status_code == 200
        canned.open.set()
        until(lambda: client.get("/readyz").status_code == 200)

"""The main flows, over real HTTP."""

import base64
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from inference.checkpoint import Checkpoint, CheckpointError
from inference.images import Picture
from service.app import create_app
from service.engine import Answer, EngineError
from service.problems import KINDS, NAMESPACE
from service.schemas import InferResponse, ModelReport
from service.settings import Settings

Encode = Callable[..., bytes]
Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]


class Fake:
    """An engine that waits, or fails, when it is told to."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.warm, self.closed = checkpoint, threading.Event(), False
        self.failure: Exception = RuntimeError("secret inside")

    def warm_up(self) -> None:
        assert self.warm.wait(30)

    def infer_batch(self, pictures: Sequence[Picture]) -> list[Answer | EngineError]:
        raise self.failure

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake(checkpoint: Checkpoint) -> Iterator[Fake]:
    fake = Fake(checkpoint)
    yield fake
    fake.warm.set()


def check_problem(response: httpx.Response, name: str, says: str) -> None:
    """That a response is a complete problem document of one kind."""
    document = response.json()
    assert document["type"] == f"{NAMESPACE}{name}", document
    (kind,) = [kind for kind in KINDS if kind.name == name]
    assert response.status_code == document["status"] == kind.status
    assert response.headers["content-type"] == "application/problem+json"
    assert document["title"] == kind.title
    assert re.search(says, document["detail"]), document["detail"]
    assert document["instance"] == response.url.path
    assert document["request_id"] == response.headers["x-request-id"]
    assert set(document) == {"type", "title", "status", "detail", "instance", "request_id"}


def same(answer: dict[str, Any]) -> dict[str, Any]:
    """What must not change between two answers to one picture."""
    return {
        key: value
        for key, value in answer.items()
        if key not in ("request_id", "stamp", "timing_ms")
    }


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values in some JSON, and where each is."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{place}.{key}")
    else:
        yield place, value


def test_three_forms_one_answer(client: httpx.Client, photo: Image.Image, encode: Encode) -> None:
    data = encode(photo)
    text = base64.b64encode(data).decode()
    lines = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    responses = [
        client.post("/infer", files={"image": ("photo.png", data, "image/png")}),
        client.post("/infer", content=data, headers={"Content-Type": "image/png"}),
        client.post("/infer", content=data, headers={"Content-Type": "application/octet-stream"}),
        client.post("/infer", content=data),
        client.post("/infer", content=iter([data[:500], data[500:]])),  # chunked
        client.post("/infer", json={"image": text}),
        client.post("/infer", json={"image": lines}),
        client.post("/infer", json={"image": f"data:image/png;base64,{text}"}),
    ]
    for response in responses:
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        assert same(response.json()) == same(responses[0].json())


def test_answer_has_the_form_of_the_schema(
    client: httpx.Client, photo: Image.Image, encode: Encode, checkpoint: Checkpoint
) -> None:
    before = datetime.now(UTC)
    response = client.post("/infer", files={"image": encode(photo)})
    answer = InferResponse.model_validate(response.json())
    assert answer.schema_version == "1.0"
    assert answer.frame_id == "table"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", answer.stamp)
    assert abs((datetime.fromisoformat(answer.stamp) - before).total_seconds()) < 60
    assert answer.model.model_dump() == {
        "name": "random",
        "version": "7",
        "sha256": checkpoint.sha256,
    }
    assert (answer.image.width, answer.image.height) == (256, 256)
    assert sum(answer.count.probabilities) == pytest.approx(1, abs=1e-5)
    assert answer.count.value == len(answer.objects)
    assert answer.warnings == [] or "do not trust" in answer.warnings[0]
    for thing in answer.objects:
        assert 0 <= thing.bbox2d.x <= thing.bbox2d.x + thing.bbox2d.width <= 256
        assert all(math.isfinite(value) for value in thing.covariance)
    assert answer.timing_ms.infer > 0


def test_warnings_of_the_image_reach_the_answer(client: httpx.Client, encode: Encode) -> None:
    response = client.post("/infer", files={"image": encode(Image.new("RGB", (300, 100)))})
    assert "cropped" in response.json()["warnings"][0]


@pytest.mark.parametrize("given", ["robot-7/frame:000123", "a" * 128])
def test_request_id_of_the_client(client: httpx.Client, given: str) -> None:
    response = client.get("/nothing", headers={"X-Request-ID": given})
    assert response.headers["x-request-id"] == response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["a" * 129, "a b", "<script>", "", None])
def test_request_id_of_our_own(client: httpx.Client, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given}
    made = {client.get("/healthz", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)


def test_model(client: httpx.Client, checkpoint: Checkpoint) -> None:
    report = ModelReport.model_validate(client.get("/model").json())
    assert report.sha256 == checkpoint.sha256
    assert report.count_max == 3
    assert report.evaluation is None


def test_health(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


# What can be wrong with a request: its arguments, the problem, and words of the mend.
JSON = {"Content-Type": "application/json"}
PNG = {"Content-Type": "image/png"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({}, "no-image", r"empty.*multipart field `image`"),
    "empty body": ({"headers": PNG}, "no-image", "empty"),
    "empty file": ({"files": {"image": b""}}, "no-image", "empty"),
    "other field": ({"files": {"photo": b"x"}}, "no-image", "its fields: `photo`"),
    "text field": (
        {"content": b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--b--\r\n'}
        | {"headers": FORM},
        "invalid-request",
        "@",
    ),
    "two images": (
        {"files": [("image", b"x"), ("image", b"y")]},
        "invalid-request",
        "one picture a request",
    ),
    "broken form": ({"content": b"x", "headers": FORM}, "malformed-body", "multipart"),
    "no boundary": (
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        "malformed-body",
        "boundary",
    ),
    "cut form": (
        {"content": b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\nx'}
        | {"headers": FORM},
        "malformed-body",
        "ends before its last boundary",
    ),
    "no JSON": ({"content": b"{bad", "headers": JSON}, "malformed-body", "not JSON"),
    "deep JSON": ({"content": b"[" * 100_000, "headers": JSON}, "malformed-body", "not JSON"),
    "empty JSON body": ({"headers": JSON}, "no-image", "empty"),
    "JSON list": ({"json": []}, "invalid-request", "object"),
    "other key": ({"json": {"img": "x"}}, "no-image", "no key `image`"),
    "extra key": ({"json": {"image": "", "x": 1}}, "invalid-request", "unknown key `x`"),
    "number": ({"json": {"image": 3}}, "invalid-request", "image: .*string"),
    "no base64": ({"json": {"image": "abc"}}, "invalid-request", "base64"),
    "no ASCII": ({"json": {"image": "äöü="}}, "invalid-request", "base64"),
    "empty base64": ({"json": {"image": ""}}, "no-image", "empty"),
    "address": ({"json": {"image": "http://h/x.png"}}, "invalid-request", "fetches nothing"),
    "plain data URL": ({"json": {"image": "data:image/png,x"}}, "invalid-request", ";base64"),
    "form type": ({"data": {"image": "x"}}, "unsupported-media-type", "-F"),
    "text": (
        {"content": b"x", "headers": {"Content-Type": "text/plain"}},
        "unsupported-media-type",
        "text/plain is not taken",
    ),
    "GIF": (
        {"content": b"x", "headers": {"Content-Type": "image/gif"}},
        "unsupported-media-type",
        "image/webp",
    ),
    "compressed": (
        {"content": b"x", "headers": {**PNG, "Content-Encoding": "gzip"}},
        "unsupported-media-type",
        "uncompressed",
    ),
    "garbage": ({"content": b"\0\1\2\3", "headers": PNG}, "not-an-image", "convert"),
    "damaged": ({"content": b"\x89PNG\r\n\x1a\n\0", "headers": PNG}, "damaged-image", "again"),
    "large": ({"content": bytes(300_001), "headers": PNG}, "too-large", "at most 300000 bytes"),
    "large, in chunks": (
        {"content": [bytes(1000)] * 400, "headers": PNG},
        "too-large",
        "at most 300000 bytes",
    ),
    "large file": ({"files": {"image": bytes(300_001)}}, "too-large", "at most 300000 bytes"),
    "large form": ({"files": {"image": bytes(3_000_000)}}, "too-large", "at most 300000 bytes"),
    "large JSON": ({"json": {"image": "A" * 400_004}}, "too-large", "at most 300000 bytes"),
    "huge JSON": ({"json": {"image": "A" * 4_000_000}}, "too-large", "at most 300000 bytes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_request(client: httpx.Client, case: str) -> None:
    arguments, name, says = WRONG[case]
    check_problem(client.post("/infer", **arguments), name, says)


def test_too_many_pixels(client: httpx.Client, encode: Encode) -> None:
    data = encode(Image.new("1", (1001, 1000)))
    check_problem(client.post("/infer", files={"image": data}), "too-many-pixels", "scale it down")


def test_truncated(client: httpx.Client, photo: Image.Image, encode: Encode) -> None:
    data = encode(photo)
    for length in (100, len(data) // 2, len(data) - 100):
        response = client.post("/infer", files={"image": data[:length]})
        check_problem(response, "damaged-image", "truncated or damaged")


def test_wrong_address_and_method(client: httpx.Client) -> None:
    check_problem(client.get("/nothing"), "not-found", "POST a picture to /infer")
    check_problem(client.post("/infer/"), "not-found", "/infer")
    check_problem(client.get("/static/../app.py"), "not-found", "")
    check_problem(client.get("/infer"), "method-not-allowed", "use POST")
    assert client.get("/infer").headers["allow"] == "POST"
    check_problem(client.post("/model"), "method-not-allowed", "use GET")


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(client: httpx.Client) -> None:
    """A client that asks first, as curl does, gets its answer at once."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as line:
        line.settimeout(30)
        line.sendall(
            b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert line.recv(12) == b"HTTP/1.1 413"


def test_an_endless_body_is_answered(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as line:
        line.settimeout(30)
        line.sendall(
            b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"%x\r\n" % 100_000 + bytes(100_000) + b"\r\n"
        for _ in range(4):  # more than is taken, and never an end
            line.sendall(chunk)
        assert line.recv(12) == b"HTTP/1.1 413"


def test_a_client_that_goes_away_harms_nobody(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as line:
        line.sendall(
            b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 1000\r\n\r\nhalf"
        )
    time.sleep(0.1)
    assert client.get("/healthz").status_code == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_unexpected_errors_tell_the_log_only(
    fake: Fake,
    serve: Serve,
    settings: Settings,
    photo: Image.Image,
    encode: Encode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake.warm.set()
    with serve(create_app(settings, load=lambda: fake)) as client:
        while client.get("/readyz").status_code == 503:
            time.sleep(0.01)
        response = client.post(
            "/infer", files={"image": encode(photo)}, headers={"X-Request-ID": "frame-1"}
        )
        check_problem(response, "internal-error", "server's log")
        assert response.headers["x-request-id"] == "frame-1"
        assert "secret" not in response.text
        assert "frame-1" in caplog.text and "secret inside" in caplog.text
        assert client.get("/healthz").status_code == 200
    assert fake.closed


def test_not_ready_until_the_first_inference(fake: Fake, serve: Serve, settings: Settings) -> None:
    with serve(create_app(settings, load=lambda: fake)) as client:
        assert client.get("/healthz").status_code == 200
        response = client.get("/readyz")
        check_problem(response, "not-ready", "again in a few seconds")
        assert response.headers["retry-after"] == "5"
        check_problem(client.post("/infer", content=b"x"), "not-ready", "first inference")
        fake.warm.set()
        deadline = time.monotonic() + 30
        while client.get("/readyz").status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_never_ready_when_the_first_inference_fails(
    fake: Fake,
    serve: Serve,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise RuntimeError("no renderer")

    monkeypatch.setattr(fake, "warm_up", fail)
    with serve(create_app(settings, load=lambda: fake)) as client:
        deadline = time.monotonic() + 30
        while "failed" not in client.get("/readyz").json()["detail"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "no renderer" in caplog.text


def test_a_missing_checkpoint_ends_the_start(settings: Settings, tmp_path: Path) -> None:
    app = create_app(settings.model_copy(update={"checkpoint": tmp_path / "none"}))

    async def start() -> None:
        async with app.router.lifespan_context(app):
            pass

    with pytest.raises(CheckpointError, match="no such folder"):
        anyio.run(start)


def test_docs_need_no_internet(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert not re.search(r"(?i)(https?:)?//[a-z]", page.text), page.text
    assert '"validatorUrl": null' in page.text
    for address in re.findall(r'(?:src|href|url)[=:] ?["\'](static/[^"\']+)', page.text):
        assert client.get(f"/{address}").status_code == 200
    assert "static/swagger-ui-bundle.js" in page.text
    assert "url: 'openapi.json'" in page.text
    assert "url(http" not in client.get("/static/swagger-ui.css").text
    check_problem(client.get("/redoc"), "not-found", "")


def test_openapi_document(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    names = ("infer", "infer/batch", "model", "healthz", "readyz", "metrics", "admin/reload")
    assert set(document["paths"]) >= {f"/v1/{name}" for name in names}
    assert all(path.startswith("/v1/") for path in document["paths"])
    infer = document["paths"]["/v1/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {
        "multipart/form-data",
        "image/png",
        "image/jpeg",
        "image/webp",
        "application/octet-stream",
        "application/json",
    }
    assert set(infer["responses"]) == {
        *("200", "400", "401", "408", "413", "415", "422", "429", "500", "503"),
    }
    for status, response in infer["responses"].items():
        wanted = "application/json" if status == "200" else "application/problem+json"
        assert next(iter(response["content"])) == wanted
    # Every reference leads somewhere.
    schemas = document["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in schemas
    assert "HTTPValidationError" not in schemas


def test_many_clients_at_once(client: httpx.Client, photo: Image.Image, encode: Encode) -> None:
    data = encode(photo)
    answers: list[dict[str, Any]] = []

    def post() -> None:
        with httpx.Client(base_url=client.base_url, timeout=60, trust_env=False) as own:
            answers.append(own.post("/infer", files={"image": data}).json())

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len({answer["request_id"] for answer in answers}) == 8
    # Sums of a batch are rounded a little otherwise than those of one picture.
    for answer in answers:
        for (place, value), (where, wanted) in zip(
            leaves(same(answer)), leaves(same(answers[0])), strict=True
        ):
            assert place == where
            assert value == (pytest.approx(wanted, 1e-3, 1e-4) if type(value) is float else wanted)

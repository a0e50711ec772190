"""`POST /infer/batch` over real HTTP."""

import base64
import re
from typing import Any

import httpx
import pytest

from service.schemas import BatchResponse

PATH = "/v1/infer/batch"


def parts(*files: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{i}.png", data)) for i, data in enumerate(files)]


def test_each_picture_has_its_own_answer_in_order(client: httpx.Client, photo_bytes: bytes) -> None:
    alone = client.post("/v1/infer", content=photo_bytes).json()
    files = [photo_bytes, b"nothing", b"", photo_bytes[:2000], photo_bytes]
    encoded = [base64.b64encode(data).decode() for data in files]
    for arguments in ({"files": parts(*files)}, {"json": {"images": encoded}}):
        response = client.post(PATH, headers={"X-Request-ID": "frames"}, **arguments)
        assert response.status_code == 200, response.text
        answer = BatchResponse.model_validate(response.json())
        assert answer.request_id == "frames"
        assert [item.status for item in answer.results] == [200, 422, 400, 422, 200]
        for i, item in enumerate(answer.results):
            assert (item.answer is None) == (item.status != 200) == (item.problem is not None)
            if item.answer is not None:
                assert item.answer.request_id == f"frames/{i}"
                assert item.answer.image.sha256 == alone["image"]["sha256"]
                assert item.answer.count.value == alone["count"]["value"]
            if item.problem is not None:
                assert item.problem.request_id == f"frames/{i}"
                assert item.problem.status == item.status
                assert item.problem.instance == PATH


def test_each_picture_is_refined(client: httpx.Client, photo_bytes: bytes) -> None:
    response = client.post(PATH, params={"refine": 2}, files=parts(photo_bytes, b"x", photo_bytes))
    items = response.json()["results"]
    assert [item["status"] for item in items] == [200, 422, 200]
    for item in (items[0], items[2]):
        assert item["answer"]["timing_ms"]["refine"] > 0
    too_many = client.post(PATH, params={"refine": 21}, files=parts(photo_bytes))
    assert too_many.status_code == 422 and "at most 20" in too_many.json()["detail"]


def test_one_that_is_too_large_fails_alone(client: httpx.Client, photo_bytes: bytes) -> None:
    response = client.post(PATH, files=parts(bytes(300_001), photo_bytes))
    assert [item["status"] for item in response.json()["results"]] == [413, 200]


B64 = base64.b64encode(b"x").decode()
WRONG: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "no body": ({"headers": {"Content-Type": "application/json"}}, 400, "no-image", "empty"),
    "none": ({"json": {"images": []}}, 422, "invalid-request", "images: .*at least 1"),
    "no images": ({"files": {"image": b"x"}}, 400, "no-image", "images=@a.jpg"),
    "no key": ({"json": {"image": B64}}, 400, "no-image", "no key `images`"),
    "no list": ({"json": {"images": B64}}, 422, "invalid-request", "images: "),
    "no base64": ({"json": {"images": [B64, "?"]}}, 422, "invalid-request", r"images\.1"),
    "address": ({"json": {"images": ["http://h/x"]}}, 422, "invalid-request", "fetches nothing"),
    "text field": (
        {"content": b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\nx\r\n--b--'}
        | {"headers": {"Content-Type": "multipart/form-data; boundary=b"}},
        422,
        "invalid-request",
        "@",
    ),
    "too many": ({"files": parts(*[b"x"] * 17)}, 422, "invalid-request", "17 images; .* 16"),
    "far too many": ({"files": parts(*[b"x"] * 40)}, 400, "malformed-body", "Too many files"),
    "too many in JSON": (
        {"json": {"images": [B64] * 17}},
        422,
        "invalid-request",
        "17 images; .* 16",
    ),
    "raw": (
        {"content": b"x", "headers": {"Content-Type": "image/png"}},
        415,
        "unsupported-media-type",
        "images",
    ),
    "huge": ({"files": parts(bytes(45_000_000))}, 413, "too-large", "together"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_request(client: httpx.Client, case: str) -> None:
    arguments, status, name, says = WRONG[case]
    response = client.post(PATH, **arguments)
    assert response.status_code == status, response.text
    document = response.json()
    assert document["type"].endswith(f":{name}")
    assert re.search(says, document["detail"]), document["detail"]

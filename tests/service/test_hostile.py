"""Pictures that mean harm, and odd ones that do not: none of them may hurt the server."""

import random
from collections.abc import Callable

import httpx
import pytest
from PIL import Image

from benchmarks.hostile import corpus, damaged, unusable, usable

Encode = Callable[..., bytes]

# What a picture that cannot be used may end in: never in a server's error.
REFUSALS = {400, 413, 422}


GOOD, BAD, CORPUS = dict(usable()), dict(unusable()), corpus()


@pytest.mark.parametrize("name", GOOD)
def test_odd_pictures_are_answered(client: httpx.Client, name: str) -> None:
    response = client.post("/v1/infer", content=GOOD[name])
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("name", BAD)
def test_evil_pictures_are_refused(client: httpx.Client, name: str) -> None:
    for media_type in ("image/png", "image/jpeg", "application/octet-stream"):
        headers = {"Content-Type": media_type}
        response = client.post("/v1/infer", content=BAD[name], headers=headers)
        assert response.status_code in REFUSALS, response.text
        document = response.json()
        assert document["status"] == response.status_code
        assert len(document["detail"]) < 500
        assert "Traceback" not in document["detail"] and "0x" not in document["detail"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_cut_off_anywhere(
    client: httpx.Client, photo: Image.Image, encode: Encode, kind: str
) -> None:
    data = encode(photo.resize((600, 600)).effect_spread(9), kind)
    for length in range(0, len(data) - 64, 1024):
        response = client.post("/v1/infer", content=data[:length])
        assert response.status_code == (400 if length == 0 else 422), (length, response.text)


def fuzz(client: httpx.Client, number: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(number):
        data = damaged(rng.choice(CORPUS), rng)
        response = client.post("/v1/infer", content=data)
        assert response.status_code in {200, 503} | REFUSALS, (data[:200].hex(), response.text)


def test_damaged_at_random(client: httpx.Client, photo_bytes: bytes) -> None:
    before = client.post("/v1/infer", content=photo_bytes).json()
    fuzz(client, 200, seed=0)
    after = client.post("/v1/infer", content=photo_bytes).json()
    assert after["count"] == before["count"]
    assert client.get("/readyz").status_code == 200


@pytest.mark.slow
def test_memory_stays_flat(client: httpx.Client) -> None:
    """10,000 hostile requests, and after the first thousand hardly any more memory."""

    def resident() -> float:
        lines = client.get("/metrics").text.splitlines()
        (line,) = (line for line in lines if line.startswith("process_resident_memory_bytes"))
        return float(line.split()[1])

    for name in BAD:
        test_evil_pictures_are_refused(client, name)
    fuzz(client, 1000, seed=1)
    before = resident()
    fuzz(client, 9000, seed=2)
    assert resident() < 1.05 * before

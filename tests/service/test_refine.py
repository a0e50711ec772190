"""`POST /infer?refine=N`: in its turn, within its limits, for every format."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.settings import Settings

PATH = "/v1/infer"


def test_refined_answers_explain_their_picture_no_less(
    client: httpx.Client, photo_bytes: bytes
) -> None:
    plain, refined = (
        client.post(PATH, params=asked, content=photo_bytes).json() for asked in ({}, {"refine": 3})
    )
    assert plain["timing_ms"]["refine"] == 0 < refined["timing_ms"]["refine"]
    errors = [one["quality"]["reconstruction_error"] for one in (refined, plain)]
    assert errors[0] <= errors[1]


@pytest.mark.parametrize("form", ["detection3d", "mjcf", "bop"])
def test_every_format_has_it(client: httpx.Client, photo_bytes: bytes, form: str) -> None:
    answers = [
        client.post(PATH, params={"format": form, **more}, content=photo_bytes)
        for more in ({}, {"refine": 3})
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].text != answers[1].text


@pytest.mark.parametrize(
    ("steps", "says"), [("21", "at most 20 steps"), ("-1", "greater than or equal to 0"), ("x", "")]
)
def test_wrong_numbers(client: httpx.Client, photo_bytes: bytes, steps: str, says: str) -> None:
    response = client.post(PATH, params={"refine": steps}, content=photo_bytes)
    assert response.status_code == 422
    assert says in response.json()["detail"]


def test_others_have_their_turn_between_refinements(
    canned: Any, serve: Any, settings: Settings, photo_bytes: bytes, until: Callable[..., None]
) -> None:
    limits = settings.model_copy(update={"refine_seconds": 0.25, "batch_size": 4})
    with serve(create_app(limits, load=lambda: canned)) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        files = [("images", (f"{i}.png", photo_bytes)) for i in range(3)]
        answers: dict[str, httpx.Response] = {}

        def batch() -> None:
            answers["batch"] = client.post("/v1/infer/batch", params={"refine": 5}, files=files)

        canned.open.clear()
        asking = threading.Thread(target=batch)
        asking.start()
        until(lambda: bool(canned.batches))
        canned.open.set()
        answers["alone"] = client.post(PATH, params={"refine": 2}, content=photo_bytes)
        asking.join()
    assert canned.refined.count((5, 0.25)) == 3 and canned.refined.count((2, 0.25)) == 1
    for item in answers["batch"].json()["results"]:
        assert item["answer"]["warnings"][-1] == "refined by 5"
    assert answers["alone"].json()["warnings"][-1] == "refined by 2"

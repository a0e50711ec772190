"""Over real HTTP: other formats, samples, drawings, meshes, the model's card."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import mujoco
import numpy as np
import pytest
import trimesh
from fastapi import FastAPI
from PIL import Image

from service.app import create_app
from service.formats.detection3d import Detection3DArray
from service.problems import NAMESPACE
from service.schemas import ModelReport, SceneDescription
from service.settings import Settings, default_checkpoint

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "table-06.png"


@pytest.fixture(scope="module")
def shipped(serve: Serve) -> Iterator[httpx.Client]:
    """A client of the service with the shipped model."""
    with serve(create_app(Settings(max_samples=16, max_bytes=3_000_000))) as client:
        while client.get("/readyz").status_code == 503:
            pass
        yield client


@pytest.fixture(scope="module")
def answer(shipped: httpx.Client) -> dict[str, Any]:
    return shipped.post("/infer", content=PHOTO.read_bytes()).json()


def post(client: httpx.Client, query: str) -> httpx.Response:
    return client.post(f"/v1/infer?{query}", content=PHOTO.read_bytes())


def check_problem(response: httpx.Response, status: int, name: str, says: str) -> None:
    assert response.status_code == status, response.text[:200]
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == NAMESPACE + name
    assert re.search(says, document["detail"]), document["detail"]


def test_formats(shipped: httpx.Client, answer: dict[str, Any]) -> None:
    response = post(shipped, "format=scene")
    assert response.headers["content-type"] == "application/json"
    assert response.json()["objects"] == answer["objects"]
    assert response.json()["samples"] == []

    response = post(shipped, "format=detection3d")
    assert response.headers["content-type"] == "application/json"
    message = Detection3DArray.model_validate_json(response.content)
    classes = [item["class_id"] for item in answer["objects"]]
    assert [each.results[0].hypothesis.class_id for each in message.detections] == classes

    response = post(shipped, "format=mjcf")
    assert response.headers["content-type"] == "application/xml"
    model = mujoco.MjModel.from_xml_string(response.text)
    assert [model.body(k + 1).name for k in range(3)] == [f"{c}-{k}" for k, c in enumerate(classes)]

    response = post(shipped, "format=bop&scene_id=4&im_id=5")
    assert response.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [(row["scene_id"], row["im_id"]) for row in rows] == [("4", "5")] * 3


def test_what_cannot_be_asked_for(shipped: httpx.Client) -> None:
    says = r"query.format: .*'scene', 'detection3d', 'mjcf' or 'bop'"
    check_problem(post(shipped, "format=xml"), 422, "invalid-request", says)
    check_problem(post(shipped, "samples=17"), 422, "invalid-request", "at most 16")
    check_problem(post(shipped, "samples=-1"), 422, "invalid-request", "query.samples")
    says = "format=bop has no place"
    check_problem(post(shipped, "samples=1&format=bop"), 422, "invalid-request", says)
    check_problem(post(shipped, "format=bop&im_id=-1"), 422, "invalid-request", "query.im_id")


def test_samples_scatter_about_the_answer(shipped: httpx.Client, answer: dict[str, Any]) -> None:
    samples = post(shipped, "samples=16").json()["samples"]
    assert len(samples) == 16
    described = [SceneDescription.model_validate(each) for each in samples]
    assert len({each.camera.azimuth.value for each in described}) == 16
    middle = np.median([each.camera.azimuth.value for each in described])
    assert middle == pytest.approx(answer["camera"]["azimuth"]["value"], abs=0.02)
    # Nobody who looks at this table doubts what stands there.
    wanted = sorted(item["class_id"] for item in answer["objects"])
    agreeing = [
        each for each in described if sorted(item.class_id for item in each.objects) == wanted
    ]
    assert len(agreeing) > 12


def picture(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text[:300]
    assert response.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(response.content)))


def test_an_answer_is_drawn_as_the_photo_shows_it(
    shipped: httpx.Client, answer: dict[str, Any]
) -> None:
    drawn = picture(shipped.post("/render", json=answer))
    assert drawn.shape == (480, 480, 3)
    photo = np.asarray(Image.open(PHOTO).convert("RGB").resize((480, 480), Image.Resampling.BOX))
    assert np.abs(drawn.astype(int) - photo).mean() < 3
    # The difference is what the routes's form gives, and an empty table differs by its objects.
    form = {
        "image": PHOTO.read_bytes(),
        "scene": shipped.post("/infer", content=PHOTO.read_bytes()).content,
    }
    difference = picture(shipped.post("/render", files=form))
    assert np.abs(difference.astype(int) - np.abs(drawn.astype(int) - photo)).max() <= 3
    empty = (
        b'{"camera": {"azimuth": {"value": %f}}, "objects": []}'
        % (answer["camera"]["azimuth"]["value"])
    )
    form = {"image": PHOTO.read_bytes(), "scene": empty}
    assert picture(shipped.post("/render", files=form)).mean() > 5 * difference.mean()


def test_samples_can_be_drawn(shipped: httpx.Client) -> None:
    sample = post(shipped, "samples=1").json()["samples"][0]
    assert picture(shipped.post("/render", json=sample)).max() > 0
    field = {"scene": (None, '{"camera": {"azimuth": {"value": 0}}, "objects": []}')}
    assert picture(shipped.post("/render", files=field)).max() > 0  # a text field does as well


CUP = {
    "class_id": "cup",
    "pose": {
        "position": {"x": 0, "y": 0, "z": 0},
        "orientation": {"x": 0, "y": 0, "z": 0, "w": 1},
    },
}
EMPTY: dict[str, Any] = {"camera": {"azimuth": {"value": 0}}, "objects": []}


@pytest.mark.parametrize(
    ("arguments", "status", "name", "says"),
    [
        ({}, 415, "unsupported-media-type", "type none.*as JSON"),
        (
            {"content": b"x", "headers": {"Content-Type": "image/png"}},
            415,
            "unsupported-media-type",
            "image/png",
        ),
        ({"json": []}, 422, "invalid-request", "object"),
        ({"json": {"objects": []}}, 422, "invalid-request", "camera: Field required"),
        (
            {"json": EMPTY | {"objects": [CUP | {"class_id": "fork"}]}},
            422,
            "invalid-request",
            "knows no 'fork'; it knows cup, pan, plate",
        ),
        ({"json": EMPTY | {"objects": [CUP] * 4}}, 422, "invalid-request", "at most 3"),
        (
            {
                "content": b'{"camera": {"azimuth": {"value": 1e999}}, "objects": []}',
                "headers": {"Content-Type": "application/json"},
            },
            422,
            "invalid-request",
            "finite",
        ),
        (
            {"content": b"{", "headers": {"Content-Type": "application/json"}},
            400,
            "malformed-body",
            "not JSON",
        ),
        (
            {"content": b" " * 70_000, "headers": {"Content-Type": "application/json"}},
            413,
            "too-large",
            "65536 bytes",
        ),
        ({"files": {"image": b"x"}}, 422, "invalid-request", "0 fields `scene`"),
        ({"files": {"scene": b"{}", "image": b"x"}}, 422, "invalid-request", "camera"),
        (
            {
                "files": {
                    "scene": b'{"camera": {"azimuth": {"value": 0}}, "objects": []}',
                    "image": b"x",
                }
            },
            422,
            "not-an-image",
            "convert",
        ),
        ({"files": {"scene": b"{}", "image": bytes(4_000_000)}}, 413, "too-large", "JPEG"),
    ],
)
def test_what_cannot_be_drawn(
    shipped: httpx.Client, arguments: dict[str, Any], status: int, name: str, says: str
) -> None:
    check_problem(shipped.post("/render", **arguments), status, name, says)


def test_meshes(shipped: httpx.Client) -> None:
    for known in shipped.get("/model").json()["classes"]:
        response = shipped.get(f"/meshes/{known['name']}")
        assert response.headers["content-type"] == "model/gltf-binary"
        scene = trimesh.load_scene(io.BytesIO(response.content), file_type="glb")
        x, up, depth = scene.extents
        assert [x, depth, up] == pytest.approx(list(known["size"].values()), abs=1e-5)
        tag = response.headers["etag"]
        again = shipped.get(f"/meshes/{known['name']}", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
    check_problem(shipped.get("/meshes/fork"), 404, "not-found", "'fork'; it knows cup, pan, plate")


def test_the_model_tells_of_itself(shipped: httpx.Client, client: httpx.Client) -> None:
    report = ModelReport.model_validate_json(shipped.get("/model").content)
    folder = default_checkpoint()
    assert report.card == (folder / "README.md").read_text()
    assert report.evaluation is not None
    assert report.evaluation["count_accuracy"] > 0.9
    assert client.get("/model").json()["card"] is None

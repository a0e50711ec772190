"""A 2D model answers over HTTP and on the command line: count, windows, codes."""

import base64
import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from PIL import Image

from inference.air2d import Air2d, Air2dConfig
from inference.checkpoint2d import Checkpoint2d, load_checkpoint2d, save_checkpoint2d
from service.app import create_app
from service.cli import main
from service.settings import Settings

Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]
CONFIG = Air2dConfig(
    side=20, window=8, steps=3, what=4, hidden=16, embedding=16, encoder=(16,), decoder=(16,)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "flat"
    with torch.random.fork_rng():
        torch.manual_seed(2)
        save_checkpoint2d(folder, Air2d(CONFIG), name="flat", version="3")
    return folder


@pytest.fixture
def loaded(folder: Path) -> Checkpoint2d:
    return load_checkpoint2d(folder)


@pytest.fixture
def photo() -> bytes:
    """Twice as large as the network looks, and light where something is."""
    image = Image.new("L", (40, 40))
    image.paste(255, (4, 6, 20, 18))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def check(answer: dict, loaded: Checkpoint2d, photo: bytes) -> None:
    """That an answer is what the model itself says of the picture."""
    small = Image.open(io.BytesIO(photo)).resize((20, 20), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.array(small))[None, None] / 255
    estimate = loaded.model.infer(pixels)
    count = int(estimate.count)
    assert count > 0  # of a model that was never trained
    assert answer["model"]["name"] == "flat" and answer["frame_id"] == "image"
    assert answer["count"]["value"] == count == len(answer["objects"])
    assert answer["count"]["probabilities"] == pytest.approx(
        estimate.count_probabilities[0].tolist(), abs=1e-3
    )
    for k, item in enumerate(answer["objects"]):
        side = float(estimate.where.mean[0, k, 0].exp()) * 40  # px of the photo
        assert item["bbox2d"]["width"] == pytest.approx(side, rel=1e-2)
        centre = (float(estimate.where.mean[0, k, 1]) + 1) * 20
        assert item["bbox2d"]["x"] + side / 2 == pytest.approx(centre, abs=0.1)
        assert item["code"]["mean"] == pytest.approx(estimate.what.mean[0, k].tolist(), abs=0.05)
        assert len(item["code"]["std"]) == CONFIG.what
    error = (estimate.picture - pixels).square().mean()
    assert answer["quality"]["reconstruction_error"] == pytest.approx(float(error), rel=0.02)


def test_the_server_answers_with_windows_and_codes(
    serve: Serve, loaded: Checkpoint2d, photo: bytes
) -> None:
    app = create_app(Settings(checkpoint=loaded.folder), loaded=loaded)
    with serve(app) as client:
        found = client.post("/infer", content=photo, headers={"Content-Type": "image/png"})
        assert found.status_code == 200
        check(found.json(), loaded, photo)
        report = client.get("/v1/model").json()
        assert (report["model"]["version"], report["greatest_count"], report["code"]) == ("3", 3, 4)
        # What needs scenes is not there.
        assert client.get("/meshes/cup.obj").status_code == 404
        bad = client.post("/infer", content=b"no", headers={"Content-Type": "image/png"})
        assert bad.headers["content-type"] == "application/problem+json"


def test_what_was_inferred_is_drawn_again(serve: Serve, loaded: Checkpoint2d, photo: bytes) -> None:
    png = {"Content-Type": "image/png"}
    with serve(create_app(Settings(checkpoint=loaded.folder), loaded=loaded)) as client:
        plain = client.post("/infer", content=photo, headers=png).json()
        drawn = client.post("/infer?drawn=true", content=photo, headers=png).json()
        assert client.get("/model").json()["kind"] == "2d"
        assert client.get("/examples").json() == {"pictures": []}
    assert plain["drawn"] is None and plain["objects"][0]["drawn"] is None

    def pixels(text: str) -> np.ndarray:
        image = Image.open(io.BytesIO(base64.b64decode(text)))
        assert (image.mode, image.size) == ("L", (20, 20))
        return np.asarray(image) / 255

    small = Image.open(io.BytesIO(photo)).resize((20, 20), Image.Resampling.BOX)
    estimate = loaded.model.infer(torch.from_numpy(np.array(small))[None, None] / 255)
    for k, item in enumerate(drawn["objects"]):
        assert pixels(item["drawn"]) == pytest.approx(estimate.layers[0, k, 0].numpy(), abs=0.01)
    whole = estimate.picture[0, 0].clamp(0, 1).numpy()
    assert pixels(drawn["drawn"]) == pytest.approx(whole, abs=0.01)


def test_the_command_prints_the_same(
    folder: Path, loaded: Checkpoint2d, photo: bytes, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "photo.png"
    path.write_bytes(photo)
    assert main(["infer", str(path), "--checkpoint", str(folder)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["request_id"] == str(path)
    check(answer, loaded, photo)
    assert main(["infer", str(path), "--checkpoint", str(folder), "--refine", "2"]) == 2
    assert "is for scenes" in capsys.readouterr().err

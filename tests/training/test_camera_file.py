"""Calibration files: what they say becomes the camera of a SceneSpec, or a sentence why not."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
import yaml
from fastapi.testclient import TestClient
from PIL import Image
from scipy.spatial.transform import Rotation

from inference.checkpoint import load_checkpoint, save_checkpoint
from inference.posterior import Posterior, PosteriorConfig
from renderer.backend import open_renderer
from renderer.camera import project
from renderer.prior import sample
from renderer.spec import Camera
from service.app import create_app
from service.settings import Settings
from training.camera_file import read_camera
from training.new import make
from training.wishes import wishes_of

K = np.array([[615.0, 0.0, 329.0], [0.0, 615.0, 236.0], [0.0, 0.0, 1.0]])


def table_in_camera() -> np.ndarray:
    """A camera that somebody has screwed to a shelf: no angle is round."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("ZXZ", [3.0, 131.0, 22.0], degrees=True).as_matrix()
    pose[:3, 3] = 0.04, -0.02, 0.93
    return pose


def written(folder: Path, **changes: Any) -> Path:
    data = {
        "K": K.tolist(),
        "image_size": [640, 480],
        "table_in_camera": table_in_camera().tolist(),
    }
    file = folder / "camera.json"
    data = {key: value for key, value in {**data, **changes}.items() if value is not None}
    file.write_text(json.dumps(data))
    return file


def test_points_are_seen_where_the_calibration_says(tmp_path: Path) -> None:
    camera = Camera(**read_camera(written(tmp_path)))
    points = np.array([[0.0, 0.0, 0.0], [0.2, 0.1, 0.05], [-0.1, 0.25, 0.1]])
    pose = table_in_camera()
    optical = points @ pose[:3, :3].T + pose[:3, 3]
    expected = optical @ K.T
    azimuth = torch.tensor([camera.azimuth_range[0]], dtype=torch.float64)
    found = project(camera, azimuth, torch.from_numpy(points)[None], 480, 640)[0]
    np.testing.assert_allclose(found.numpy(), expected[:, :2] / expected[:, 2:], atol=1e-4)
    assert not camera.moves


def test_the_file_of_a_ros_calibration(tmp_path: Path) -> None:
    file = tmp_path / "ost.yaml"
    matrix = {"rows": 3, "cols": 3, "data": K.ravel().tolist()}
    straight = {"rows": 1, "cols": 5, "data": [0.0] * 5}
    file.write_text(
        yaml.safe_dump(
            {
                **{"image_width": 640, "image_height": 480, "camera_matrix": matrix},
                "distortion_coefficients": straight,
            }
        )
    )
    keys = read_camera(file)
    assert keys["fovy_deg"] == pytest.approx(math.degrees(2 * math.atan(240 / 615)))
    assert "distance" not in keys


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"distortion": [0.1, 0, 0, 0]}, "undistort the photos first"),
        ({"K": None}, "lacks K or image_size"),
        ({"image_size": None}, "lacks K or image_size"),
        ({"table_in_camera": [1, 2, 3]}, "must be 4 x 4"),
        ({"table_in_camera": np.diag([2.0, 2, 2, 1]).tolist()}, "is no rotation"),
        (
            {"table_in_camera": np.eye(4).tolist()},
            "would not look down on the table",
        ),
        ({"K": "wide"}, "K: must be a list of numbers"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_camera(written(tmp_path, **changes))
    with pytest.raises(ValueError, match=r"camera\.json"):
        read_camera(written(tmp_path, **changes))


def test_a_calibrated_camera_from_new_to_an_answer(tmp_path: Path) -> None:
    """Four by three, rolled, its axis beside the middle: the server says where it stands."""
    ball = trimesh.creation.icosphere(radius=0.05)
    ball.visual.face_colors = [40, 90, 220, 255]
    ball.export(tmp_path / "ball.ply")
    files, camera = {"ball": tmp_path / "ball.ply"}, read_camera(written(tmp_path))
    wishes = wishes_of(unit=["m"], up=["z"])
    world = make(tmp_path / "world", files, wishes, count=2, camera=camera)
    small = PosteriorConfig(
        height=48, width=64, channels=8, summary=16, hidden=16, keys=8, blocks=1
    )
    out = tmp_path / "checkpoint"
    save_checkpoint(out, Posterior(world.spec, small).eval(), name="calibrated")
    checkpoint = load_checkpoint(out)
    assert checkpoint.spec.camera == world.spec.camera
    photo = tmp_path / "photo.png"
    renderer = open_renderer(world.spec, height=480, width=640, backend="raycast")
    scene = sample(world.spec, 1, generator=torch.Generator().manual_seed(0))
    Image.fromarray(renderer.render_bytes(scene)[0].numpy()).save(photo)
    with TestClient(create_app(Settings(checkpoint=out, engines=1, queue_seconds=60.0))) as client:
        while client.get("/readyz").status_code == 503:
            time.sleep(0.02)
        answer = client.post("/infer", content=photo.read_bytes()).json()
        model = client.get("/model").json()
    assert (answer["image"]["width"], answer["image"]["height"]) == (640, 480)
    assert not [warning for warning in answer["warnings"] if "crop" in warning]
    assert model["camera"]["roll"] == pytest.approx(math.radians(camera["roll_deg"]))
    assert model["camera"]["principal"]["x"] == pytest.approx(9 / 480)
    # The pose that is answered is that of the calibration.
    pose = answer["camera"]["pose"]
    rotation = Rotation.from_quat([pose["orientation"][axis] for axis in "xyzw"]).as_matrix()
    np.testing.assert_allclose(rotation, table_in_camera()[:3, :3].T, atol=1e-4)
    expected = -table_in_camera()[:3, :3].T @ table_in_camera()[:3, 3]
    np.testing.assert_allclose([pose["position"][axis] for axis in "xyz"], expected, atol=1e-4)

"""Cameras as a calibration describes them: an axis beside the middle, a roll, other shapes."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from renderer.appearance import Appearance
from renderer.backend import open_renderer
from renderer.camera import camera_pose, project, unproject_to_table
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec, SpecError
from renderer.windows import Pixels, object_boxes, windows_of

K = [[620.0, 0.0, 352.0], [0.0, 620.0, 219.0], [0.0, 0.0, 1.0]]
SIZE = [640, 480]
HEIGHT, WIDTH = 96, 128


def calibrated(**camera: Any) -> SceneSpec:
    keys: dict[str, Any] = {
        **{"target": [0.05, -0.03, 0.0], "distance": 1.1, "elevation_deg": 38, "roll_deg": 7.0},
        **{"azimuth_deg": [-30, 50], "K": K, "image_size": SIZE},
    }
    ball = {"name": "ball", "shape": "sphere", "size": [0.04], "colour": [1, 1, 1]}
    box = {"name": "box", "shape": "box", "size": [0.05, 0.03, 0.04], "colour": [0.9, 0.2, 0.1]}
    return SceneSpec.build(
        {
            "name": "calibrated",
            "table": {"half_size": [0.4, 0.3], "colour": [0.1, 0.1, 0.12]},
            "camera": {**keys, **camera},
            "objects": [{**ball, "symmetry": "continuous"}, {**box, "symmetry": 2}],
            "count": {"max": 2},
            "placement": {"extent": [0.25, 0.2]},
        }
    )


def test_points_are_seen_where_k_says() -> None:
    """The textbook's way: rotate, translate, multiply by K."""
    spec = calibrated()
    azimuth = torch.tensor([0.3], dtype=torch.float64)
    position, axes = (value[0].numpy() for value in camera_pose(spec.camera, azimuth))
    points = np.array([[0.1, 0.05, 0.0], [-0.2, 0.1, 0.08], [0.0, 0.0, 0.0]])
    optical = (points - position) @ (axes * [1.0, -1.0, -1.0])
    expected = optical @ np.array(K).T
    expected = expected[:, :2] / expected[:, 2:]
    found = project(spec.camera, azimuth, torch.from_numpy(points)[None], 480, 640)[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    flat = unproject_to_table(calibrated(azimuth_deg=[0, 0]).camera, found[:1], 480, 640)
    again = torch.cat([flat, torch.zeros(1, 1)], dim=1).double()
    pixels = project(spec.camera, torch.zeros(1, dtype=torch.float64), again[None], 480, 640)
    np.testing.assert_allclose(pixels[0].numpy(), found[:1].numpy(), atol=1e-3)


@pytest.mark.parametrize("backend", ["opengl", "raycast"])
@pytest.mark.parametrize("dressed", [False, True])
def test_objects_are_drawn_where_points_are_seen(backend: str, dressed: bool) -> None:
    spec = calibrated()
    scene = Scene.empty(3, 2)
    scene.presence[:, 0] = True
    scene.position[:, 0] = torch.tensor([[0.0, 0.0], [0.2, 0.15], [-0.2, 0.1]])
    scene.azimuth[:] = torch.tensor([0.0, 0.6, -0.4])
    renderer = open_renderer(spec, height=HEIGHT, width=WIDTH, backend=backend, supersample=2)
    looks = Appearance.neutral(spec, 3) if dressed else None
    empty = replace(scene, presence=torch.zeros(3, 2, dtype=torch.bool))
    pictures = renderer.render(scene, looks) - renderer.render(empty, looks)
    weight = pictures.abs().mean(1)
    rows, columns = torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5
    mass = weight.sum((1, 2))
    seen = torch.stack(
        [(weight.sum(1) * columns).sum(1) / mass, (weight.sum(2) * rows).sum(1) / mass], dim=1
    )
    middle = torch.cat([scene.position[:, :1], torch.full((3, 1, 1), 0.04)], dim=2)
    expected = project(spec.camera, scene.azimuth, middle, HEIGHT, WIDTH)[:, 0]
    # Light falls from one side: a ball's middle of light is not its middle.
    assert (seen - expected).norm(dim=1).max() < 1.5


@pytest.mark.parametrize("backend", ["opengl", "raycast"])
def test_windows_are_parts_of_whole_pictures(backend: str) -> None:
    spec = calibrated()
    scene = sample(spec, 6, generator=torch.Generator().manual_seed(1))
    renderer = open_renderer(spec, height=HEIGHT, width=WIDTH, backend=backend, supersample=2)
    boxes = object_boxes(spec, scene, HEIGHT, WIDTH)
    windows = windows_of(boxes[:, 0], HEIGHT, WIDTH)
    pixels = Pixels.of(windows)
    whole = renderer.render(scene).permute(0, 2, 3, 1)[pixels.window, pixels.y, pixels.x]
    packed = renderer.render_windows(scene, windows).cpu()
    assert len(packed) > 100
    assert (packed - whole).abs().mean() < 0.004
    # Nothing of the first object shows beyond its window.
    without = replace(scene, presence=scene.presence.clone())
    without.presence[:, 0] = False
    changed = (renderer.render(scene) - renderer.render(without)).abs().amax(1) > 0
    changed[pixels.window, pixels.y, pixels.x] = False
    assert not bool(changed.any())


def test_boxes_with_and_without_an_appearance_agree() -> None:
    spec = calibrated()
    scene = sample(spec, 8, generator=torch.Generator().manual_seed(2))
    plain = object_boxes(spec, scene, HEIGHT, WIDTH)
    dressed = object_boxes(spec, scene, HEIGHT, WIDTH, Appearance.neutral(spec, 8))
    seen = scene.presence
    torch.testing.assert_close(plain[seen], dressed[seen], atol=1e-3, rtol=1e-4)


def test_backends_agree() -> None:
    spec = calibrated()
    scene = sample(spec, 6, generator=torch.Generator().manual_seed(3))
    one, other = (
        open_renderer(spec, height=HEIGHT, width=WIDTH, backend=name, supersample=2).render(scene)
        for name in ("opengl", "raycast")
    )
    assert (one - other).abs().mean() < 0.006


def test_a_saved_spec_keeps_its_camera(tmp_path: Any) -> None:
    spec = calibrated()
    again = SceneSpec.load(spec.save(tmp_path))
    assert again.camera == spec.camera
    assert again.camera.aspect == pytest.approx(4 / 3)
    assert again.camera.principal == pytest.approx((32 / 480, -21 / 480))
    assert again.camera.fovy_deg == pytest.approx(math.degrees(2 * math.atan(240 / 620)))


@pytest.mark.parametrize(
    ("camera", "said"),
    [
        ({"image_size": None}, "image_size"),
        ({"fovy_deg": 40}, "fovy_deg: follows from K"),
        ({"K": [[620, 0, 320], [0, 600, 240], [0, 0, 1]]}, "pixels are not square"),
        ({"K": [[620, 5, 320], [0, 620, 240], [0, 0, 1]]}, "without skew"),
        ({"K": [[620, 0, 700], [0, 620, 240], [0, 0, 1]]}, "beside pictures of 640 x 480"),
        ({"K": [620, 620, 320, 240]}, "must be 3 x 3 numbers"),
        ({"roll_deg": 200}, "camera.roll_deg"),
    ],
)
def test_bad_calibrations_are_refused(camera: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        calibrated(**camera)

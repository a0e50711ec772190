"""The camera's arithmetic, held against the pictures of both backends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from renderer import Scene, SceneSpec
from renderer.camera import camera_pose, from_view, project, to_view, unproject_to_table

World = dict[str, Any]
AZIMUTHS = torch.tensor([-2.0, -0.7, 0.0, 0.4, 1.6, 3.0])


@pytest.fixture
def dark(world: World) -> World:
    """Red things on a black table, on which every pixel of a thing can be told."""
    world["table"]["colour"] = [0, 0, 0]
    world["camera"] = {
        **{"target": [0.05, -0.03, 0.02], "distance": 1.5, "elevation_deg": 35, "fovy_deg": 45},
        "azimuth_deg": [-180, 180],
    }
    return world


def scene_of(
    positions: list[tuple[float, float]],
    *,
    azimuth: Tensor,
    identity: int = 0,
    yaw: float | Tensor = 0.0,
) -> Scene:
    """One scene for each azimuth, all with the same things."""
    batch, things = len(azimuth), len(positions)
    scene = Scene.empty(batch, things)
    scene.presence[:], scene.identity[:] = True, identity
    scene.position[:], scene.yaw[:] = torch.tensor(positions), yaw
    scene.azimuth[:] = azimuth
    return scene


def silhouette(pictures: Tensor) -> NDArray[np.bool_]:
    """Pixels that are not black, `[B, H, W]`."""
    return (pictures.amax(dim=3) > 20).numpy()


def centroid(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of the pixels' centres (x, y)."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


@pytest.mark.parametrize("width", [128, 192])
def test_points_are_seen_where_they_are_projected(
    dark: World, draw: Any, backend: str, width: int
) -> None:
    radius = 0.025
    dark["camera"]["aspect"] = width / 128
    dark["objects"] = [
        {"name": "bead", "shape": "sphere", "size": [radius], "colour": [1, 0, 0]},
    ]
    dark["count"]["max"] = 1
    spec = SceneSpec.build(dark)
    for position in [(0.0, 0.0), (0.3, 0.1), (-0.2, 0.35), (0.1, -0.38)]:
        scene = scene_of([position], azimuth=AZIMUTHS)
        masks = silhouette(draw(spec, backend, scene, height=128, width=width))
        point = torch.tensor([*position, radius]).expand(len(AZIMUTHS), 1, 3)
        expected = project(spec.camera, AZIMUTHS, point, 128, width)[:, 0]
        for mask, pixel in zip(masks, expected.numpy(), strict=True):
            np.testing.assert_allclose(centroid(mask), pixel, atol=0.5)


def test_camera_goes_to_plus_x_and_looks_at_its_target(dark: World) -> None:
    camera = SceneSpec.build(dark).camera
    position, axes = camera_pose(camera, torch.tensor([0.0, math.pi / 2, 0.5]))
    target, away = torch.tensor(camera.target), 1.5 * math.cos(math.radians(35))
    high = camera.target[2] + 1.5 * math.sin(math.radians(35))
    torch.testing.assert_close(position[0], torch.tensor([0.05, -0.03 - away, high]))
    torch.testing.assert_close(position[1], torch.tensor([0.05 + away, -0.03, high]))
    torch.testing.assert_close(position - 1.5 * axes[:, :, 2], target.expand(3, 3))
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).expand(3, 3, 3))
    assert (torch.linalg.det(axes) > 0.99).all()
    middle = project(camera, torch.tensor([0.5]), target[None, None], 60, 80)
    assert middle.flatten().tolist() == pytest.approx([40, 30], abs=1e-3)


def test_from_plus_x_things_at_plus_x_are_near(dark: World, draw: Any, backend: str) -> None:
    spec = SceneSpec.build(dark)
    right = torch.tensor([math.pi / 2])
    near = silhouette(draw(spec, backend, scene_of([(0.3, 0.0)], azimuth=right, identity=1)))
    far = silhouette(draw(spec, backend, scene_of([(-0.3, 0.0)], azimuth=right, identity=1)))
    assert near.sum() > 1.5 * far.sum()  # larger, and lower in the picture
    assert centroid(near[0])[1] > centroid(far[0])[1] + 10
    # What is at +y is to the right of the camera now.
    side = silhouette(draw(spec, backend, scene_of([(0.0, 0.3)], azimuth=right, identity=1)))
    assert centroid(side[0])[0] > 40


@pytest.mark.parametrize(
    ("yaw", "direction"),
    [(0.0, (1, 0)), (90.0, (0, -1)), (180.0, (-1, 0)), (-90.0, (0, 1))],
)
def test_yaw_turns_the_handle_from_x_to_y(
    dark: World, draw: Any, backend: str, yaw: float, direction: tuple[int, int]
) -> None:
    pan = {"name": "pan", "mesh": "meshes/pan.obj", "colour": [1, 0, 0]}
    dark["objects"], dark["camera"]["target"] = [pan], [0, 0, 0]
    dark["camera"]["elevation_deg"] = 60
    spec = SceneSpec.build(dark)
    scene = scene_of([(0.0, 0.0)], azimuth=torch.zeros(1), yaw=math.radians(yaw))
    (mask,) = silhouette(draw(spec, backend, scene, height=96, width=96))
    # The handle reaches farther from the origin, at the picture's middle, than anything else.
    rows, columns = np.nonzero(mask)
    offsets = np.stack([columns + 0.5 - 48, rows + 0.5 - 48], axis=1)
    tip = offsets[np.argmax(np.linalg.norm(offsets, axis=1))]
    assert tip @ direction > 0.95 * np.linalg.norm(tip) > 10


def test_taller_things_reach_higher(dark: World, draw: Any, backend: str) -> None:
    sizes = {"low": 0.04, "high": 0.12}
    dark["objects"] = [
        {"name": name, "shape": "cylinder", "size": [0.03, half], "colour": [1, 0, 0]}
        for name, half in sizes.items()
    ]
    dark["count"]["max"] = 1
    spec = SceneSpec.build(dark)
    tops = []
    for identity, half in enumerate(sizes.values()):
        scene = scene_of([(0.1, 0.1)], azimuth=torch.zeros(1), identity=identity)
        (mask,) = silhouette(draw(spec, backend, scene, height=128, width=128))
        tops.append(np.nonzero(mask)[0].min())
        edge = torch.tensor([[[0.1, 0.13, 2 * half]]])  # of the lid, farthest from the camera
        expected = float(project(spec.camera, torch.zeros(1), edge, 128, 128)[0, 0, 1])
        assert tops[-1] == pytest.approx(expected, abs=1)
    assert tops[1] < tops[0] - 8


def test_view_frame_and_back(dark: World) -> None:
    camera = SceneSpec.build(dark).camera
    generator = torch.Generator().manual_seed(0)
    position = torch.rand(6, 4, 2, generator=generator) - 0.5
    azimuth = AZIMUTHS[:, None].expand(6, 4)
    seen = to_view(camera, position, azimuth)
    torch.testing.assert_close(from_view(camera, seen, azimuth), position)

    # The same pixel shows it, as the camera at azimuth 0 would see it there.
    def on_table(points: Tensor) -> Tensor:
        return torch.cat([points, torch.zeros_like(points[..., :1])], dim=-1)

    pixels = project(camera, AZIMUTHS, on_table(position), 64, 64)
    origin = torch.tensor(camera.target[:2])
    straight = project(camera, torch.zeros(6), on_table(origin + seen), 64, 64)
    torch.testing.assert_close(pixels, straight, atol=1e-3, rtol=0)


def test_table_points_under_pixels(dark: World) -> None:
    camera = SceneSpec.build(dark).camera
    pixels = torch.cartesian_prod(torch.linspace(0, 96, 7), torch.linspace(10, 64, 7))
    points = unproject_to_table(camera, pixels, 64, 96)
    flat = torch.cat([points, torch.zeros(len(points), 1)], dim=1)
    torch.testing.assert_close(
        project(camera, torch.zeros(1), flat[None], 64, 96)[0], pixels, atol=1e-3, rtol=1e-4
    )


def test_a_ray_above_the_horizon_ends_very_far_away(dark: World) -> None:
    dark["camera"] |= {"elevation_deg": 10, "fovy_deg": 60}
    point = unproject_to_table(SceneSpec.build(dark).camera, torch.tensor([[32.0, 0.0]]), 64, 64)
    assert point.isfinite().all() and point[0, 1] > 50


def test_scene_turned_with_the_camera_looks_the_same(dark: World, draw: Any, backend: str) -> None:
    # Only outlines: the light stays with the table, and the table's own corners are black.
    dark["objects"] = [{"name": "pan", "mesh": "meshes/pan.obj", "colour": [1, 0, 0]}]
    spec = SceneSpec.build(dark)
    target = torch.tensor(spec.camera.target[:2])
    position = torch.tensor([[0.25, 0.1], [-0.15, -0.2]])
    straight = scene_of(position.tolist(), azimuth=torch.zeros(1), yaw=torch.tensor([0.3, 2.0]))
    (expected,) = silhouette(draw(spec, backend, straight, height=96, width=96))
    assert expected.sum() > 300
    for azimuth in AZIMUTHS:
        turned = from_view(spec.camera, position - target, azimuth.expand(2))
        yaw = straight.yaw[0] + azimuth
        scene = scene_of(turned.tolist(), azimuth=azimuth[None], yaw=yaw)
        (found,) = silhouette(draw(spec, backend, scene, height=96, width=96))
        assert (found != expected).sum() <= 0.01 * expected.sum()

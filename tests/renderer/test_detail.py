"""Simplified meshes are as close to the whole ones as they claim, and look the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import trimesh

from renderer import Scene, SceneSpec
from renderer.camera import project
from renderer.detail import PIXEL_SHARE, deviation, pixel_tolerance, simplified
from renderer.mjcf import build_model
from renderer.opengl import OpenGLRenderer
from renderer.prior import sample

SIZE = 64  # px


@pytest.fixture(scope="module")
def tabletop() -> SceneSpec:
    return SceneSpec.load("tabletop")


def meshes(spec: SceneSpec) -> list[trimesh.Trimesh]:
    return [geometry.mesh for geometry in spec.geometries if geometry.mesh is not None]


@pytest.fixture(scope="module")
def drawing(tabletop: SceneSpec) -> OpenGLRenderer:
    return OpenGLRenderer(tabletop, height=SIZE, width=SIZE, supersample=2)


# --- meshes ----------------------------------------------------------------------------------


def test_deviation_of_what_is_known() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.05)
    larger = trimesh.creation.icosphere(subdivisions=4, radius=0.053)
    assert deviation(ball, ball) == pytest.approx(0, abs=1e-5)
    assert deviation(ball, larger) == pytest.approx(0.003, rel=0.02)
    assert deviation(larger, ball) == deviation(ball, larger)
    # The slivers of a fan, of which most have no sample of their own.
    post = trimesh.creation.cylinder(radius=0.1, height=0.2, sections=400)
    assert deviation(post, post) == pytest.approx(0, abs=2e-4)


def test_a_small_part_that_is_missing_counts() -> None:
    plate = trimesh.creation.cylinder(radius=0.2, height=0.02)
    knob = trimesh.creation.icosphere(subdivisions=1, radius=0.004)
    knob.apply_translation([0, 0, 0.03])
    both = trimesh.util.concatenate([plate, knob])
    assert deviation(plate, both) == deviation(both, plate) > 0.02


@pytest.mark.parametrize("height", [32, 64, 128])
def test_simplified_meshes_are_as_close_as_they_claim(tabletop: SceneSpec, height: int) -> None:
    tolerance = pixel_tolerance(tabletop, height)
    for mesh in meshes(tabletop):
        found = simplified(mesh, tolerance)
        assert deviation(mesh, found) <= tolerance
        if height <= 64:
            assert len(found.faces) < 0.5 * len(mesh.faces)


def test_what_has_no_detail_stays_as_it_is() -> None:
    box = trimesh.creation.box((0.1, 0.1, 0.1))
    assert simplified(box, 0.01) is box
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.05)
    assert simplified(ball, 1e-9) is ball


@pytest.mark.parametrize("height", [32, 64])
def test_tolerance_is_an_eighth_of_a_pixel_where_things_are_nearest(
    tabletop: SceneSpec, height: int
) -> None:
    tolerance = pixel_tolerance(tabletop, height)
    scene = sample(tabletop, 200, generator=torch.Generator().manual_seed(0))
    mesh = meshes(tabletop)[0]
    origin = torch.cat([scene.position, torch.full((200, 3, 1), float(mesh.bounds[1, 2]))], dim=2)
    sideways = torch.stack([scene.azimuth.cos(), scene.azimuth.sin(), 0 * scene.azimuth], dim=-1)
    camera = tabletop.camera
    here, there = (
        project(camera, scene.azimuth, points, height, height)
        for points in (origin, origin + tolerance * sideways[:, None])
    )
    shift = (there - here).norm(dim=-1)
    assert 0.4 * PIXEL_SHARE < shift.min() <= shift.max() <= PIXEL_SHARE


def test_meshes_with_a_texture_are_left_alone() -> None:
    data: dict[str, Any] = SceneSpec.load("tabletop").model_dump(mode="json", exclude_defaults=True)
    data["objects"][0]["texture"] = "textures/stripes.png"
    spec = SceneSpec.build(data)
    whole, coarse = build_model(spec).model, build_model(spec, tolerance=0.0015).model
    assert coarse.mesh_facenum[0] == whole.mesh_facenum[0]
    assert (coarse.mesh_facenum[1:] < 0.5 * whole.mesh_facenum[1:]).all()


# --- pictures ------------------------------------------------------------------------------


@pytest.mark.usefixtures("opengl")
def test_pictures_look_the_same(
    tabletop: SceneSpec, drawing: OpenGLRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without detail that does not show."""
    monkeypatch.setattr("renderer.opengl.pixel_tolerance", lambda spec, height: 0.0)
    finely = OpenGLRenderer(tabletop, height=SIZE, width=SIZE, supersample=2)
    scene = sample(tabletop, 32, generator=torch.Generator().manual_seed(1))
    empty = Scene(torch.zeros_like(scene.presence), *list(scene.tensors())[1:])
    coarse, whole, nothing = drawing.render(scene), finely.render(scene), finely.render(empty)
    finely.close()
    assert not torch.equal(coarse, whole)
    assert float((coarse - whole).norm() / (whole - nothing).norm()) < 0.1
    on_objects = (whole - nothing).abs().amax(dim=1, keepdim=True).expand_as(whole) > 0.02
    assert 255 * float((coarse - whole)[on_objects].mean().abs()) < 1  # nor lighter or darker

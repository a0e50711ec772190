"""What is known of an object's shape: footprint, height, symmetry."""

from __future__ import annotations

import math

import pytest
import torch

from renderer import SceneSpec
from renderer.geometry import GeometryError, ObjectGeometry, mesh_geometry, shape_geometry
from renderer.spec import BUILTIN

SHAPES = {
    "box": (0.1, 0.06, 0.02),
    "cube": (0.1, 0.1, 0.1),
    "sphere": (0.07,),
    "cylinder": (0.05, 0.1),
}


def geometry(name: str) -> ObjectGeometry:
    return shape_geometry("box" if name == "cube" else name, SHAPES[name])


@pytest.mark.parametrize(
    ("name", "lower", "upper"),
    [
        ("box", (-0.1, -0.06, 0), (0.1, 0.06, 0.04)),
        ("sphere", (-0.07, -0.07, 0), (0.07, 0.07, 0.14)),
        ("cylinder", (-0.05, -0.05, 0), (0.05, 0.05, 0.2)),
    ],
)
def test_shapes_stand_on_the_table(
    name: str, lower: tuple[float, ...], upper: tuple[float, ...]
) -> None:
    shape = geometry(name)
    assert shape.lower == pytest.approx(lower) and shape.upper == pytest.approx(upper)
    assert shape.height == pytest.approx(upper[2])


@pytest.mark.parametrize("name", SHAPES)
def test_discs_cover_a_shape(name: str) -> None:
    shape = geometry(name)
    x, y = shape.upper[:2]
    across = torch.linspace(-1, 1, 41)
    points = torch.cartesian_prod(across * x, across * y)
    if name in ("sphere", "cylinder"):
        points = points[points.norm(dim=1) <= x]
    gaps = torch.cdist(points, shape.footprint[:, :2]) - shape.footprint[:, 2]
    assert gaps.min(dim=1).values.max() < 1e-6
    assert shape.radius <= 1.2 * float(points.norm(dim=1).max())


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        ("box", {1, 2}, {0, 3, 4}),
        ("cube", {1, 2, 4}, {0, 3, 8}),
        ("sphere", {0, 1, 2, 3, 7}, set()),
        ("cylinder", {0, 1, 2, 3, 7}, set()),
    ],
)
def test_symmetries_of_shapes(name: str, has: set[int], lacks: set[int]) -> None:
    assert {order for order in has | lacks if geometry(name).has_symmetry(order)} == has


def test_meshes_have_the_symmetry_that_the_builtin_specs_claim() -> None:
    spec = SceneSpec.load("tabletop")
    pan, plate = spec.geometries[1:]
    assert plate.has_symmetry(0) and plate.has_symmetry(3)
    assert not pan.has_symmetry(0) and not pan.has_symmetry(2) and pan.has_symmetry(1)


def test_mesh_is_scaled_and_turned_upright() -> None:
    path = BUILTIN / "meshes" / "pan.obj"
    plain = mesh_geometry(path, scale=1.0, up_axis="z")
    large = mesh_geometry(path, scale=2.0, up_axis="z")
    assert large.height == pytest.approx(2 * plain.height)
    assert large.radius == pytest.approx(2 * plain.radius, rel=1e-3)
    lying = mesh_geometry(path, scale=1.0, up_axis="x")
    assert lying.height == pytest.approx(plain.upper[0] - plain.lower[0])
    assert lying.lower[2] == pytest.approx(0, abs=1e-9)
    assert plain.radius == pytest.approx(plain.upper[0], rel=0.05)  # the end of the handle


def test_unknown_shape_and_unusable_mesh() -> None:
    with pytest.raises(ValueError, match="unknown shape 'cone'"):
        shape_geometry("cone", (1.0, 1.0))
    with pytest.raises(GeometryError, match="no such file"):
        mesh_geometry(BUILTIN / "meshes" / "none.obj", scale=1.0, up_axis="z")


def test_radius_of_a_box_reaches_its_corner() -> None:
    assert geometry("cube").radius == pytest.approx(0.1 * math.sqrt(2), rel=1e-6)

"""The built-in crockery, loading foreign meshes, their footprint, symmetry and MuJoCo arrays."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import mujoco
import numpy as np
import pytest
import trimesh
from PIL import Image

import renderer.crockery
from renderer.crockery import CROCKERY, obj_text
from renderer.meshes import (
    MeshError,
    bounding_radius,
    corner_normals,
    footprint_circles,
    has_symmetry,
    height,
    load_mesh,
    mujoco_mesh_arrays,
    symmetry_error,
)

SHIPPED = Path(renderer.crockery.__file__).parent / "scenes" / "meshes"
SIZES = {"cup": (0.09, 0.10), "pan": (0.22, 0.057), "plate": (0.24, 0.025)}  # across in y, high; m


def box(x: float, y: float, z: float) -> trimesh.Trimesh:
    mesh: trimesh.Trimesh = trimesh.creation.box((x, y, z))
    return mesh


def cylinder(sections: int = 48) -> trimesh.Trimesh:
    mesh: trimesh.Trimesh = trimesh.creation.cylinder(0.05, height=0.1, sections=sections)
    return mesh


@pytest.fixture(params=sorted(CROCKERY))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_crockery_is_solid_and_stands_upright(name: str) -> None:
    mesh = CROCKERY[name]()
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert 600 <= len(mesh.faces) <= 1600
    for shell in mesh.split():
        assert shell.volume > 0  # each closed shell faces outwards
    assert mesh.bounds[0, 2] == 0.0
    across, high = SIZES[name]
    assert mesh.extents[1] == pytest.approx(across, abs=1e-6)
    assert height(mesh) == pytest.approx(high, abs=1e-3)


def test_handle_points_along_x(name: str) -> None:
    low, high = CROCKERY[name]().bounds
    reach = {"cup": 0.045, "pan": 0.168, "plate": 0.0}[name]
    assert high[0] + low[0] == pytest.approx(reach, abs=1e-3)
    assert high[1] + low[1] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", ["cup", "pan"])
def test_inside_is_hollow(name: str) -> None:
    mesh = CROCKERY[name]()
    # Straight down the axis: the first surface met is the bottom, not a lid.
    near_axis = np.hypot(*mesh.triangles_center[:, :2].T) < SIZES[name][0] / 3
    assert mesh.triangles_center[near_axis, 2].max() < 0.015


def test_committed_files_are_what_the_code_generates(name: str) -> None:
    lines = [line.split() for line in (SHIPPED / f"{name}.obj").read_text().splitlines()]
    mesh = CROCKERY[name]()
    vertices = np.array([line[1:] for line in lines if line[0] == "v"], dtype=float)
    corners = [[c.split("//") for c in line[1:]] for line in lines if line[0] == "f"]
    np.testing.assert_allclose(vertices, mesh.vertices, atol=1e-5)
    np.testing.assert_array_equal(np.array(corners, dtype=int)[..., 0] - 1, mesh.faces)
    loaded = load_mesh(SHIPPED / f"{name}.obj")
    assert loaded.is_watertight and len(loaded.faces) == len(mesh.faces)


@pytest.mark.parametrize("suffix", ["obj", "stl", "glb", "ply"])
def test_load_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"box.{suffix}"
    box(100, 200, 300).export(path)
    mesh = load_mesh(path, scale=0.001)
    np.testing.assert_allclose(mesh.bounds, [[-0.05, -0.1, 0], [0.05, 0.1, 0.3]], atol=1e-7)
    assert mesh.is_watertight


def test_load_joins_the_parts_of_a_scene(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(box(0.1, 0.1, 0.1))
    lifted = trimesh.transformations.translation_matrix([0.3, 0, 0.2])
    scene.add_geometry(box(0.1, 0.1, 0.1), transform=lifted)
    scene.export(tmp_path / "two.glb")
    mesh = load_mesh(tmp_path / "two.glb")
    assert len(mesh.faces) == 24
    np.testing.assert_allclose(mesh.bounds, [[-0.05, -0.05, 0], [0.35, 0.05, 0.3]], atol=1e-6)


@pytest.mark.parametrize("up_axis", ["x", "y", "z", "-x", "-y", "-z"])
def test_up_axis_becomes_z_without_mirroring(tmp_path: Path, up_axis: str) -> None:
    up = np.zeros(3)
    up["xyz".index(up_axis[-1])] = -1.0 if up_axis.startswith("-") else 1.0
    # A cone's tip is up; its volume keeps its sign only when it is not mirrored.
    cone = trimesh.creation.cone(radius=0.05, height=0.2, sections=16)
    cone.apply_transform(trimesh.geometry.align_vectors([0, 0, 1], up))
    path = tmp_path / "cone.ply"
    cone.export(path)
    mesh = load_mesh(path, up_axis=up_axis)
    tip = mesh.vertices[np.argmax(mesh.vertices[:, 2])]
    np.testing.assert_allclose(tip, [0, 0, 0.2], atol=1e-6)
    assert mesh.volume == pytest.approx(cone.volume, rel=1e-5) and mesh.volume > 0


def _write_nan(path: Path) -> None:
    path.write_text("v 0 0 0\nv 1 0 nan\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\n")


@pytest.mark.parametrize(
    ("file", "write", "mend"),
    [
        ("gone.obj", lambda path: None, "check the path"),
        ("cup.blend", lambda path: path.write_text("x"), "convert it"),
        ("broken.glb", lambda path: path.write_bytes(b"not a glb"), "export"),
        ("empty.obj", lambda path: path.write_text(""), "export"),
        ("points.obj", lambda path: path.write_text("v 0 0 0\nv 1 0 0\n"), "export"),
        ("nan.obj", _write_nan, "not finite"),
        ("flat.stl", lambda path: box(1, 1, 0).export(path), "flat"),
    ],
)
def test_bad_files_are_refused(
    tmp_path: Path, file: str, write: Callable[[Path], object], mend: str
) -> None:
    write(tmp_path / file)
    with pytest.raises(MeshError, match=mend) as caught:
        load_mesh(tmp_path / file)
    assert file in str(caught.value)


@pytest.mark.parametrize("bad", [{"scale": 0.0}, {"scale": float("nan")}, {"up_axis": "up"}])
def test_bad_arguments_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(MeshError, match=next(iter(bad))):
        load_mesh(SHIPPED / "cup.obj", **bad)  # type: ignore[arg-type]


FOOTPRINTS: dict[str, Callable[[], trimesh.Trimesh]] = {
    **CROCKERY,
    "cube": lambda: box(0.1, 0.1, 0.1),
    "bar": lambda: box(0.3, 0.03, 0.1),
    "ring": lambda: trimesh.creation.torus(0.1, 0.02),
    "off centre": lambda: box(0.1, 0.05, 0.1).apply_translation([1.0, -2.0, 0.0]),
}


@pytest.mark.parametrize("shape", sorted(FOOTPRINTS))
def test_discs_cover_the_footprint_tightly(shape: str) -> None:
    mesh = FOOTPRINTS[shape]()
    discs = footprint_circles(mesh)
    assert 1 <= len(discs) <= 8 and discs.shape[1] == 3
    surface, _ = trimesh.sample.sample_surface(mesh, 5000, seed=0)
    for points, slack in ((mesh.vertices, 0.0), (surface, 1e-3)):
        gaps = np.linalg.norm(points[:, None, :2] - discs[:, :2], axis=-1) - discs[:, 2]
        assert gaps.min(axis=1).max() <= slack
    # Nothing far outside: what the discs cover is at most a margin larger than the footprint.
    rng = np.random.default_rng(0)
    low, high = (discs[:, :2].T - discs[:, 2]).min(1), (discs[:, :2].T + discs[:, 2]).max(1)
    inside = rng.uniform(low, high, (20000, 2))
    gaps = np.linalg.norm(inside[:, None] - discs[:, :2], axis=-1) - discs[:, 2]
    covered = (gaps.min(axis=1) <= 0).mean() * np.prod(high - low)
    assert covered <= 1.45 * _footprint_area(mesh)
    np.testing.assert_array_equal(discs, footprint_circles(mesh))


def _footprint_area(mesh: trimesh.Trimesh) -> float:
    """Area [m2] of the projection on z = 0 by counting a fine raster, holes filled row by row."""
    points, _ = trimesh.sample.sample_surface(mesh, 200_000, seed=1)
    pitch = float(np.ptp(points[:, :2], axis=0).max()) / 100
    cells = np.floor(points[:, :2] / pitch).astype(int)
    columns = np.unique(cells[:, 0])
    spans = [cells[cells[:, 0] == column, 1] for column in columns]
    return sum(int(span.max() - span.min()) + 1 for span in spans) * pitch**2


def test_few_discs_when_few_are_allowed() -> None:
    assert len(footprint_circles(CROCKERY["pan"](), n=1)) == 1
    assert len(footprint_circles(CROCKERY["pan"](), n=3)) <= 3
    plate = footprint_circles(CROCKERY["plate"]())
    np.testing.assert_allclose(plate, [[0, 0, 0.12]], atol=1e-3)


def test_bounding_radius_is_about_the_objects_own_axis() -> None:
    assert bounding_radius(box(0.6, 0.8, 0.1)) == pytest.approx(0.5)
    assert bounding_radius(CROCKERY["cup"]()) == pytest.approx(0.09, abs=1e-3)


def test_symmetry() -> None:
    assert has_symmetry(CROCKERY["plate"](), None)
    assert has_symmetry(cylinder(), None) and has_symmetry(cylinder(), 5)
    cube = box(0.1, 0.1, 0.1)
    assert has_symmetry(cube, 4) and has_symmetry(cube, 2)
    assert not has_symmetry(cube, None) and not has_symmetry(cube, 3)
    assert has_symmetry(box(0.2, 0.1, 0.1), 2) and not has_symmetry(box(0.2, 0.1, 0.1), 4)
    assert not has_symmetry(cylinder(sections=6), None) and has_symmetry(cylinder(sections=6), 6)
    assert not has_symmetry(cube.apply_translation([0.02, 0, 0]), 4)  # its axis is the origin's
    with pytest.raises(ValueError, match="order is 0"):
        has_symmetry(cube, 0)


@pytest.mark.parametrize("name", ["cup", "pan"])
def test_a_handle_breaks_every_symmetry(name: str) -> None:
    mesh = CROCKERY[name]()
    assert has_symmetry(mesh, 1)
    assert not any(has_symmetry(mesh, order) for order in (2, 3, 4, 5, 6, None))
    assert symmetry_error(mesh, 2) > 0.03


def test_normals_are_sharp_at_edges_and_round_on_walls() -> None:
    normals, index = corner_normals(box(1, 1, 1))
    assert len(normals) == 6
    cube = box(1, 1, 1)
    np.testing.assert_allclose(normals[index], np.repeat(cube.face_normals[:, None], 3, axis=1))
    tube = cylinder(sections=64)
    normals, index = corner_normals(tube)
    wall = np.abs(tube.face_normals[:, 2]) < 0.5
    corners = tube.triangles[wall].reshape(-1, 3) * [1, 1, 0]
    radial = corners / np.linalg.norm(corners, axis=1, keepdims=True)
    # The two walls that meet at a corner may bring three triangles: half a facet off at most.
    cosine = (normals[index[wall]].reshape(-1, 3) * radial).sum(axis=1)
    assert cosine.min() > np.cos(np.pi / 64)


def _compiled(spec: mujoco.MjSpec) -> tuple[np.ndarray, np.ndarray, mujoco.MjModel]:
    """Face corners' positions and normals [F, 3, 3] of the one mesh, out of its inertia frame."""
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="mesh")
    model = spec.compile()
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.mesh_quat[0])
    back = turn.reshape(3, 3).T
    vertices = model.mesh_vert @ back + model.mesh_pos[0]
    return vertices[model.mesh_face], (model.mesh_normal @ back)[model.mesh_facenormal], model


def test_mujoco_draws_the_same_faces_and_normals(name: str) -> None:
    mesh = load_mesh(SHIPPED / f"{name}.obj")
    arrays = mujoco_mesh_arrays(mesh)
    assert arrays.vertices.shape == arrays.normals.shape and arrays.texcoords is None
    spec = mujoco.MjSpec()
    spec.add_mesh(name="mesh", **arrays.spec_fields())
    positions, normals, _ = _compiled(spec)
    np.testing.assert_allclose(positions, mesh.triangles, atol=1e-6)
    expected, index = corner_normals(mesh)
    np.testing.assert_allclose(normals, expected[index], atol=1e-5)


def test_mujoco_reads_the_shipped_file_alike(name: str) -> None:
    spec = mujoco.MjSpec()
    spec.add_mesh(name="mesh", file=str(SHIPPED / f"{name}.obj"))
    positions, normals, _ = _compiled(spec)
    mesh = CROCKERY[name]()
    np.testing.assert_allclose(positions, mesh.triangles, atol=2e-6)
    expected, index = corner_normals(mesh)
    np.testing.assert_allclose(normals, expected[index], atol=1e-3)


def test_texture_coordinates_as_mujoco_itself_reads_them(tmp_path: Path) -> None:
    corners = ["v 0 0 0", "v 0.1 0 0", "v 0 0.1 0", "v 0 0 0.1"]
    uv = ["vt 0.1 0.2", "vt 0.9 0.2", "vt 0.1 0.7", "vt 0.6 0.6", "vt 0.3 0.9"]
    faces = ["f 1/1 3/3 2/2", "f 1/1 2/2 4/4", "f 2/2 3/3 4/5", "f 3/3 1/1 4/4"]
    path = tmp_path / "tetra.obj"
    (tmp_path / "paint.png").write_bytes(_png())
    (tmp_path / "tetra.mtl").write_text("newmtl paint\nmap_Kd paint.png\n")
    path.write_text("\n".join(["mtllib tetra.mtl", *corners, *uv, "usemtl paint", *faces]) + "\n")
    mesh = load_mesh(path)
    assert isinstance(mesh.visual, trimesh.visual.TextureVisuals)
    theirs, ours = mujoco.MjSpec(), mujoco.MjSpec()
    theirs.add_mesh(name="mesh", file=str(path))
    ours.add_mesh(name="mesh", **mujoco_mesh_arrays(mesh).spec_fields())
    (positions, _, a), (same, _, b) = _compiled(theirs), _compiled(ours)
    np.testing.assert_allclose(same, positions, atol=1e-6)
    np.testing.assert_allclose(
        b.mesh_texcoord[b.mesh_facetexcoord], a.mesh_texcoord[a.mesh_facetexcoord], atol=1e-6
    )


def _png() -> bytes:
    out = BytesIO()
    Image.new("RGB", (4, 4), (200, 30, 30)).save(out, "png")
    return out.getvalue()


def test_obj_text_has_no_negative_zero() -> None:
    assert "-0.000000" not in obj_text(CROCKERY["cup"]())

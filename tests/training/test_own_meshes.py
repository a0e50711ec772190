"""Foreign meshes: what is guessed of them, and what is written."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from renderer.backend import open_renderer
from renderer.meshes import MeshError, load_mesh, turned_upright
from renderer.scene import Scene
from renderer.spec import SceneSpec
from training.bake import bake
from training.new import make
from training.own_meshes import named_files, take_in
from training.sightings import look
from training.surface import ColouredMesh, load_coloured
from training.turning import find_turning
from training.units import guess_unit
from training.upright import guess_up, shape_scores
from training.wishes import wishes_of

NONE, CONTINUOUS = 1, 0

# Written down by hand, from looking at each: the axis that is up, and its symmetry about it.
TRUTH = {
    "kaykit/bowl.obj": ("y", CONTINUOUS),  # 16 sides
    "kaykit/bowl_small.obj": ("y", CONTINUOUS),
    "kaykit/pan_A.obj": ("y", NONE),
    "kaykit/pan_B.obj": ("y", NONE),
    "kaykit/plate.obj": ("y", CONTINUOUS),  # 16 sides
    "kaykit/plate_small.obj": ("y", 12),
    "kaykit/pot_A.obj": ("y", 2),
    "kaykit/pot_B.obj": ("y", 2),
    "kenney_foodkit/bowl.glb": ("y", 6),
    "kenney_foodkit/bowlSoup.glb": ("y", NONE),  # what is in it lies in no order
    "kenney_foodkit/cup.glb": ("y", NONE),
    "kenney_foodkit/cupSaucer.glb": ("y", 12),
    "kenney_foodkit/cupTea.glb": ("y", NONE),
    "kenney_foodkit/fryingPan.glb": ("y", NONE),
    "kenney_foodkit/mug.glb": ("y", NONE),
    "kenney_foodkit/pan.glb": ("y", 2),  # two handles
    "kenney_foodkit/plate.glb": ("y", 12),
    "kenney_foodkit/plateDeep.glb": ("y", 12),
    "kenney_foodkit/plateRectangle.glb": ("y", 2),
    "ycb/024_bowl/textured.obj": ("z", CONTINUOUS),  # a scan, a little out of round
    "ycb/025_mug/textured.obj": ("z", NONE),
}
MESHES = Path(os.environ.get("AIR_DATA", "")) / "meshes"
shared = pytest.mark.skipif("AIR_DATA" not in os.environ, reason="AIR_DATA names no data")


@shared
def test_the_table_of_truth_is_of_all_shared_meshes() -> None:
    files = (file for kind in ("obj", "glb", "stl", "ply") for file in MESHES.rglob(f"*.{kind}"))
    assert {file.relative_to(MESHES).as_posix() for file in files} == set(TRUTH)


@shared
@pytest.mark.parametrize("name", TRUTH)
def test_shared_meshes_are_guessed_right(name: str) -> None:
    """Each alone, without the help of its like."""
    axis, order = TRUTH[name]
    item = load_coloured(MESHES / name)
    guess = guess_up([shape_scores(item.mesh)], Path(name).suffix)[0]
    assert guess.axis == axis and guess.sure > 0.9
    matrix = np.eye(4)
    matrix[:3, :3] = turned_upright(np.eye(3), axis).T
    assert find_turning(item.moved(matrix)).order == order


def bottle(*, sides: int = 48, handle: bool = False) -> trimesh.Trimesh:
    """A beaker, open at the top, z up, 12 cm high."""
    outline = [(0, 0), (0.04, 0), (0.05, 0.12), (0.046, 0.12), (0.036, 0.006), (0, 0.006)]
    mesh = trimesh.creation.revolve(outline, sections=sides)
    if handle:
        grip = trimesh.creation.box((0.03, 0.012, 0.06))
        grip.apply_translation((0.06, 0.0, 0.06))
        mesh = trimesh.util.concatenate([mesh, grip])
    return mesh


def coloured(mesh: trimesh.Trimesh, colours: np.ndarray) -> ColouredMesh:
    """The mesh with a colour [3] for each face."""
    count = len(mesh.faces)
    corners = np.repeat(colours[:, None], 3, axis=1).astype(float)
    none = np.full(count, -1)
    return ColouredMesh(mesh, corners, np.zeros((count, 3, 2)), none, (), True)


@pytest.mark.parametrize("order", [3, 5, 8])
def test_n_fold_shapes_and_their_colours(order: int) -> None:
    prism = trimesh.creation.cylinder(radius=0.05, height=0.1, sections=order)
    prism.apply_translation((0.2, 0.1, 0.05))  # wherever the file's origin is
    plain = np.full((len(prism.faces), 3), 0.5)
    found = find_turning(coloured(prism, plain))
    assert found.order == order
    assert found.centre == pytest.approx((0.2, 0.1), abs=1e-6)
    side = np.argmax(prism.face_normals @ [1.0, 0.3, 0.0])
    plain[prism.face_normals @ prism.face_normals[side] > 0.99] = (0.9, 0.1, 0.1)
    marked = find_turning(coloured(prism, plain))
    assert marked.order == NONE
    assert marked.symmetric_shape


def test_a_round_thing_with_stripes_is_as_symmetric_as_its_stripes() -> None:
    mug = bottle(sides=64)
    angle = np.arctan2(*mug.triangles_center[:, 1::-1].T)
    stripes = np.where(np.sin(4 * angle)[:, None] > 0, (0.9, 0.9, 0.9), (0.2, 0.2, 0.6))
    assert find_turning(coloured(mug, np.full((len(mug.faces), 3), 0.5))).order == CONTINUOUS
    assert find_turning(coloured(mug, stripes)).order == 4


@pytest.mark.parametrize("axis", ["x", "y", "z", "-x", "-y", "-z"])
def test_a_beaker_is_stood_up_from_any_side(axis: str) -> None:
    mesh = bottle(handle=True)
    # The rotation that `turned_upright` undoes.
    back = turned_upright(np.eye(3), axis)
    mesh.vertices = mesh.vertices @ back.T
    scores = shape_scores(mesh)
    assert max(scores, key=lambda one: scores[one]) == axis


def test_a_cube_could_stand_on_any_side_and_says_so() -> None:
    assert guess_up([shape_scores(trimesh.creation.box((1, 1, 1)))], ".ply")[0].sure < 0.5


@pytest.mark.parametrize(
    ("longest", "suffix", "unit"),
    [
        ([120.0, 80.0], ".stl", "mm"),
        ([0.12], ".glb", "m"),
        ([14.0], ".obj", "cm"),
        ([161.0, 117.0], ".obj", "mm"),
        ([0.9, 1.4], ".obj", None),  # of a game: a plate of 90 cm, or of 2 cm
    ],
)
def test_units(longest: list[float], suffix: str, unit: str | None) -> None:
    guess = guess_unit(longest, suffix)
    assert guess.unit == unit
    mean = math.prod(side * guess.metres for side in longest) ** (1 / len(longest))
    assert 0.05 < mean < 0.4


def textured_box(folder: Path) -> Path:
    """A box of 12 x 8 x 20 units, z up, whose sides are painted by a picture."""
    box = trimesh.creation.box((12.0, 8.0, 20.0))
    box.unmerge_vertices()
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:32], picture[32:, :32], picture[32:, 32:] = (220, 40, 40), (40, 40, 220), (40, 200, 40)
    uv = np.random.default_rng(0).random((len(box.vertices), 2))
    box.visual = trimesh.visual.TextureVisuals(uv=uv, image=Image.fromarray(picture))
    file = folder / "box.glb"
    file.write_bytes(trimesh.exchange.gltf.export_glb(trimesh.Scene(box)))
    return file


def test_baked_colours_are_those_of_the_file(tmp_path: Path) -> None:
    """Anywhere on the surface; a face of a picture has a patch of its own."""
    item = load_coloured(textured_box(tmp_path))
    baked = bake(item)
    assert baked.texture is not None and baked.uv is not None
    none = np.zeros(len(item.mesh.faces), dtype=int)
    again = ColouredMesh(
        baked.mesh, np.ones_like(item.corners), baked.uv, none, (baked.texture,), True
    )
    points = np.random.default_rng(1).dirichlet((1, 1, 1), 3000)
    faces = np.random.default_rng(2).integers(0, len(none), 3000)
    off = np.abs(item.colours(faces, points) - again.colours(faces, points)).max(axis=1)
    # Where two colours meet they may meet a texel beside.
    assert np.mean(off) < 0.02 and np.mean(off > 0.2) < 0.03


def test_a_heavy_mesh_is_simplified_by_the_error_that_is_stated(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.05)
    ball.visual.vertex_colors = (255 * (ball.vertices / 0.1 + 0.5)).astype(np.uint8)
    file = tmp_path / "ball.ply"
    ball.export(file)
    item = load_coloured(file)
    baked = bake(item)
    assert len(baked.mesh.faces) < baked.triangles / 5 == 4096
    assert 0 < baked.off < 0.006 * 0.1
    # Every point of a sphere is as far off as it is from the radius.
    seen = np.linalg.norm(trimesh.sample.sample_surface(baked.mesh, 4000, seed=0)[0], axis=1)
    assert np.abs(seen - 0.05).max() <= baked.off + 2e-5
    mesh, texture = baked.write(tmp_path, "ball")
    back = load_mesh(tmp_path / mesh)
    assert texture is not None and len(back.faces) == len(baked.mesh.faces)
    assert back.visual.uv is not None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SceneSpec made by `new`: an STL in mm, a textured GLB, and an OBJ with y up."""
    folder = tmp_path_factory.mktemp("own")
    stl = bottle(handle=True)
    stl.apply_scale(1000)
    stl.export(folder / "beaker.stl")
    lying = trimesh.creation.cone(radius=0.05, height=0.1, sections=6)
    lying.vertices = lying.vertices[:, [0, 2, 1]] * [1, 1, -1]
    lying.export(folder / "cone.obj")
    carton = f"carton={textured_box(folder)}"
    files = named_files([f"{folder}/beaker.stl", carton, f"{folder}/cone.obj"])
    wishes = wishes_of(size=["carton=0.1"], up=["carton=z"], colour=["cone=0.1,0.2,0.9"])
    return make(folder / "my 1st", files, wishes, count=3).file


def test_a_new_world_stands_its_objects_on_the_table(world: Path) -> None:
    spec = SceneSpec.load(world)
    assert spec.name == "my_1st"
    assert spec.class_names == ("beaker", "carton", "cone")
    beaker, carton, _ = spec.geometries
    assert beaker.height == pytest.approx(0.12, abs=1e-3)
    assert carton.height == pytest.approx(0.1, abs=1e-6)
    for geometry in spec.geometries:
        assert geometry.lower[2] == pytest.approx(0.0, abs=1e-6)
        assert geometry.radius < 0.09  # centred
    assert spec.symmetry_orders == (NONE, NONE, 6)
    assert spec.objects[2].colour == (0.1, 0.2, 0.9)
    assert spec.acceptances[-1] > 0.3


def test_the_record_leads_from_the_files_to_the_objects(world: Path) -> None:
    """`mesh_to_object` takes the file's points to the object's frame."""
    for entry in json.loads((world.parent / "meshes.json").read_text()):
        source = load_coloured(entry["file"]).mesh
        matrix = np.array(entry["mesh_to_object"])
        moved = source.vertices @ matrix[:3, :3].T + matrix[:3, 3]
        written = load_mesh(world.parent / f"meshes/{entry['name']}.obj")
        np.testing.assert_allclose(moved.min(0), written.bounds[0], atol=2e-6)
        np.testing.assert_allclose(moved.max(0), written.bounds[1], atol=2e-6)
    assert np.linalg.det(matrix[:3, :3]) > 0  # never mirrored


def test_each_object_wears_its_own_texture(world: Path) -> None:
    """In both backends, whatever else is in the scene, and whatever was drawn before."""
    spec = SceneSpec.load(world)
    scene = Scene.empty(4, 3)
    scene.presence[:], scene.identity[:] = True, torch.tensor([0, 1, 2])
    scene.identity[1] = torch.tensor([1, 2, 0])
    scene.identity[2] = torch.tensor([2, 0, 1])
    scene.position[:] = torch.tensor([[-0.1, 0.0], [0.05, 0.05], [0.1, -0.08]])
    empty = replace(scene, presence=torch.zeros(4, 3, dtype=torch.bool))
    renderers = [
        open_renderer(spec, height=64, width=64, backend=name, supersample=2)
        for name in ("opengl", "raycast")
    ]
    one, other = (renderer.render(scene) for renderer in renderers)
    objects = (other - renderers[1].render(empty)).abs().amax(1) > 0.05  # [B, H, W]
    assert objects.sum() > 400
    assert (one - other).abs().mean(1)[objects].mean() < 0.04


def test_a_preview_warns_of_what_cannot_be_seen(world: Path) -> None:
    data = SceneSpec.load(world).model_dump(mode="json", exclude_defaults=True)
    twin = {**data["objects"][2], "name": "twin"}
    flat = {"shape": "cylinder", "size": [0.15, 0.0005], "symmetry": "continuous"}
    hidden = {**flat, "name": "hidden", "colour": data["table"]["colour"]}
    data["objects"] += [twin, hidden]
    data["camera"]["distance"] = 6.0
    told = "\n".join(look(SceneSpec.build(data, folder=world.parent), backend="raycast").warnings)
    assert "cone and twin: look alike" in told
    assert "hidden: hardly differs from the table" in told
    assert "too small to be seen" in told
    assert look(SceneSpec.load("tabletop"), backend="raycast").warnings == ()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"unit": ["feet"]}, "--unit feet: must be one of mm, cm, inch, m"),
        ({"up": ["cone=w"]}, "--up cone=w: must be one of x, y, z"),
        ({"size": ["big"]}, "--size big: must be the length"),
        ({"symmetry": ["1"]}, "--symmetry 1: must be none"),
        ({"colour": ["red"]}, "--colour red: must be red,green,blue"),
    ],
)
def test_bad_wishes_are_refused(option: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wishes_of(**option)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="no such file"):
        take_in(named_files([str(tmp_path / "no.obj")]), wishes_of())
    bottle().export(tmp_path / "a.stl")
    files = named_files([str(tmp_path / "a.stl")])
    with pytest.raises(ValueError, match=r"--up b=…: no object is named 'b'; there are a"):
        take_in(files, wishes_of(up=["b=y"]))
    with pytest.raises(ValueError, match="another file is named 'a' already"):
        named_files(["a=x.stl", "a=y.stl"])
    bottle(handle=True).export(tmp_path / "a.stl")
    with pytest.raises(ValueError, match=r"the shape of .* changes by such turns"):
        take_in(files, wishes_of(symmetry=["continuous"]))

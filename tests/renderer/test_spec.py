"""Loading, refusing and saving the description of a world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
import yaml
from PIL import Image
from trimesh.exchange.gltf import export_gltf

from renderer import SceneSpec, SpecError
from renderer.spec import BUILTIN, read_texture

World = dict[str, Any]
PAN = str(BUILTIN / "meshes" / "pan.obj")


def save_picture(path: Path, shade: int = 200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)).save(path)


BUILTIN_SPECS = ["objects", "tabletop-fixed", "tabletop-fixed-once", "tabletop", "tabletop-varied"]


@pytest.mark.parametrize("name", BUILTIN_SPECS)
def test_builtin_specs_load_by_name_and_by_file(name: str) -> None:
    spec = SceneSpec.load(name)
    assert spec.name == name and spec.class_names and min(spec.acceptances) > 0.4
    again = SceneSpec.load(BUILTIN / f"{name}.yaml")
    assert again == spec and hash(again) == hash(spec)
    assert spec.camera.moves == (name in ("tabletop", "tabletop-varied"))


def test_a_folder_does_not_hide_a_builtin_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tabletop").mkdir()
    monkeypatch.chdir(tmp_path)
    assert SceneSpec.load("tabletop").name == "tabletop"


def test_what_is_left_out_has_its_default(world: World) -> None:
    spec = SceneSpec.build(world)
    assert spec.count.distribution == pytest.approx([1 / 3] * 3)
    assert spec.background == (0, 0, 0) and spec.nuisance.noise is None
    assert spec.symmetry_orders == (1, 1)
    assert spec.camera.azimuth_range == pytest.approx((-np.pi * 2 / 9, np.pi * 2 / 9))


# --- saving ----------------------------------------------------------------------------------


def paths_removed(spec: SceneSpec) -> World:
    data = spec.model_dump(mode="json")
    for entry in (data["table"], *data["objects"]):
        entry["mesh"] = entry.get("mesh") is not None
        entry["texture"] = entry["texture"] is not None
    return data


def files(spec: SceneSpec) -> list[bytes]:
    paths = [spec.table.texture]
    for item in spec.objects:
        paths += [item.mesh, item.texture]
    return [spec.resolve(path).read_bytes() for path in paths if path is not None]


@pytest.mark.parametrize("name", BUILTIN_SPECS)
def test_saved_spec_needs_nothing_but_its_folder(name: str, tmp_path: Path) -> None:
    spec = SceneSpec.load(name)
    file = spec.save(tmp_path / "a" / "scene")
    (tmp_path / "a").rename(tmp_path / "moved")  # nothing in it points to where it was
    loaded = SceneSpec.load(tmp_path / "moved" / "scene" / file.name)
    assert paths_removed(loaded) == paths_removed(spec)
    assert files(loaded) == files(spec)
    assert loaded.acceptances == spec.acceptances
    assert all(not path.is_absolute() for item in loaded.objects if (path := item.mesh))


@pytest.fixture
def clashing(world: World, tmp_path: Path) -> SceneSpec:
    """Different meshes and textures under the same file names."""
    for number, folder in enumerate(("one", "two", "three", "meshes")):
        (tmp_path / folder).mkdir()
        trimesh.creation.box((0.1 + 0.01 * number,) * 3).export(tmp_path / folder / "thing.obj")
        save_picture(tmp_path / folder / "look.png", 50 * number)
    world["objects"] = [
        {"name": "first", "mesh": "one/thing.obj", "texture": "one/look.png"},
        {"name": "second", "mesh": "two/thing.obj", "texture": "two/look.png"},
        {"name": "third", "mesh": str(tmp_path / "three" / "thing.obj")},
        {"name": "again", "mesh": "one/thing.obj"},
        {"name": "last", "mesh": "meshes/thing.obj"},
    ]
    for item in world["objects"]:
        item["colour"] = [1, 1, 1]
    world["table"]["texture"] = "three/look.png"
    world["placement"]["no_overlap"] = False
    return SceneSpec.build(world, folder=tmp_path)


def test_files_of_one_name_do_not_overwrite_each_other(clashing: SceneSpec, tmp_path: Path) -> None:
    loaded = SceneSpec.load(clashing.save(tmp_path / "saved"))
    assert files(loaded) == files(clashing)
    assert loaded.objects[0].mesh == loaded.objects[3].mesh  # one file is kept once
    assert len(list((tmp_path / "saved" / "meshes").iterdir())) == 4


def test_saving_where_it_came_from(clashing: SceneSpec, tmp_path: Path) -> None:
    before = files(clashing)
    loaded = SceneSpec.load(clashing.save(tmp_path))
    assert files(loaded) == before
    assert files(SceneSpec.load(loaded.save(tmp_path))) == before


def test_saved_gltf_keeps_its_buffers(world: World, tmp_path: Path) -> None:
    parts = export_gltf(trimesh.Scene(trimesh.creation.cone(0.05, 0.2)))
    assert any(name.endswith(".bin") for name in parts)  # the shape itself lies beside the file
    for name, content in parts.items():
        (tmp_path / name.replace("model", "cone")).write_bytes(content)
    world["objects"] = [{"name": "cone", "mesh": "cone.gltf", "colour": [1, 1, 1]}]
    spec = SceneSpec.build(world, folder=tmp_path)
    loaded = SceneSpec.load(spec.save(tmp_path / "saved"))
    assert loaded.geometries[0].upper == spec.geometries[0].upper


# --- refusing --------------------------------------------------------------------------------


def put(*path: Any, to: Any) -> Callable[[World], None]:
    """Sets the entry at `path`."""

    def change(world: World) -> None:
        for key in path[:-1]:
            world = world[key]
        world[path[-1]] = to

    return change


def drop(*path: Any) -> Callable[[World], None]:
    """Removes the entry at `path`."""

    def change(world: World) -> None:
        for key in path[:-1]:
            world = world[key]
        del world[path[-1]]

    return change


def pan(**entries: Any) -> Callable[[World], None]:
    """Makes the first object a pan."""
    return put("objects", 0, to={"name": "pan", "mesh": PAN, "colour": [1, 1, 1], **entries})


def distinct(count: int) -> Callable[[World], None]:
    def change(world: World) -> None:
        world["placement"]["repeats"] = False
        world["count"]["max"] = count

    return change


REFUSED = {
    # what: (how it comes about, the key that is named, the mend)
    "missing mesh": (pan(mesh="no/pan.obj"), "objects[0] (pan).mesh", "check the path"),
    "mesh of no format": (pan(mesh="text.png"), "objects[0] (pan).mesh", "convert it to"),
    "mesh in millimetres": (pan(scale=1000), "objects[0] (pan).mesh", "set `scale` (0.001"),
    "mesh and shape": (put("objects", 0, "mesh", to=PAN), "objects[0]", "give either `mesh: FILE`"),
    "no mesh, no shape": (drop("objects", 0, "shape"), "objects[0]", "give either `mesh: FILE`"),
    "axis": (pan(up_axis="up"), "objects[0].up_axis", "must be 'x', 'y', 'z'"),
    "round pan": (pan(symmetry="continuous"), "objects[0] (pan).symmetry", "set `symmetry: none`"),
    "three-fold pan": (pan(symmetry=3), "objects[0] (pan).symmetry", "set `symmetry: none`"),
    "three-fold box": (
        put("objects", 0, "symmetry", to=3),
        "objects[0] (cube).symmetry",
        "set `symmetry: none`",
    ),
    "word for symmetry": (
        put("objects", 0, "symmetry", to="round"),
        "objects[0].symmetry",
        "must be `none`, `continuous`",
    ),
    "unknown key": (put("tabel", to=1), "tabel", "correct its spelling"),
    "unknown key within": (put("camera", "fov", to=45), "camera.fov", "correct its spelling"),
    "missing key": (drop("camera", "distance"), "camera.distance", "add it"),
    "negative size": (
        put("objects", 0, "size", to=[-0.1, 0.1, 0.1]),
        "objects[0].size[0]",
        "must be greater than 0",
    ),
    "sizes of another shape": (
        put("objects", 0, "size", to=[0.1]),
        "objects[0]",
        "needs `size` with 3 number(s)",
    ),
    "shape too large": (
        put("objects", 1, "size", to=[0.6]),
        "objects[1] (ball).size",
        "make it smaller",
    ),
    "colour in bytes": (
        put("table", "colour", to=[255, 0, 0]),
        "table.colour[0]",
        "must be less than or equal to 1",
    ),
    "colour by name": (put("table", "colour", to="red"), "table.colour", "must be a list"),
    "name with blanks": (
        put("objects", 0, "name", to="my cube"),
        "objects[0].name",
        "must consist of letters, digits",
    ),
    "one name twice": (put("objects", 1, "name", to="cube"), "objects", "rename one"),
    "no objects": (put("objects", to=[]), "objects", "needs one entry at least"),
    "missing texture": (put("table", "texture", to="no.png"), "table.texture", "correct the path"),
    "texture of no picture": (
        put("objects", 1, "texture", to="text.png"),
        "objects[1] (ball).texture",
        "give a PNG or JPEG",
    ),
    "reversed azimuth": (
        put("camera", "azimuth_deg", to=[40, -40]),
        "camera.azimuth_deg",
        "must be [least, greatest]",
    ),
    "azimuth of two turns": (
        put("camera", "azimuth_deg", to=[0, 720]),
        "camera.azimuth_deg",
        "at most 360 degrees",
    ),
    "infinite distance": (
        put("camera", "distance", to=float("inf")),
        "camera.distance",
        "must be a finite number",
    ),
    "placed beyond the table": (
        put("placement", "extent", to=[0.4, 0.6]),
        "placement.extent",
        "make it at most table.half_size",
    ),
    "more than fit": (put("count", "max", to=14), "count.max", "lower count.max"),
    "more than classes": (distinct(3), "count.max", "`placement.repeats: true`"),
    "probabilities beyond one": (
        put("count", "probabilities", to=[0.5, 0.5, 0.5]),
        "count",
        "make them sum to 1",
    ),
    "too few probabilities": (
        put("count", "probabilities", to=[0.5, 0.5]),
        "count",
        "needs max + 1 = 3 probabilities",
    ),
    "negative probability": (
        put("count", "probabilities", to=[1.5, -0.5, 0]),
        "count.probabilities[1]",
        "must be greater than or equal to 0",
    ),
    "reversed blur": (
        put("nuisance", to={"noise": {"blur_px": [2, 1]}}),
        "nuisance.noise.blur_px",
        "must be [least, greatest], not [2.0, 1.0]; swap the two",
    ),
    "unknown nuisance": (
        put("nuisance", to={"lights": {}}),
        "nuisance.lights",
        "unknown key; remove it or correct its spelling",
    ),
    "light from below": (
        put("nuisance", to={"light": {"turn_deg": [0, 80]}}),
        "nuisance.light.turn_deg[1]",
        "must be less than or equal to 50",
    ),
    "colours of nobody": (
        put("nuisance", to={"colour": {"classes": {"cub": {"value": 0.1}}}}),
        "nuisance.colour.classes",
        "no class is named 'cub'; choose among cube, ball",
    ),
    "spread beyond the circle": (
        put("nuisance", to={"colour": {"table": {"hue_deg": 200}}}),
        "nuisance.colour.table.hue_deg",
        "must be less than or equal to 180",
    ),
    "camera in its target": (
        put("nuisance", to={"camera_jitter": {"distance": [-2, 0]}}),
        "nuisance.camera_jitter.distance",
        "its least must be above -1.5 m",
    ),
    "camera below the table": (
        put("nuisance", to={"camera_jitter": {"elevation_deg": [-45, 0]}}),
        "nuisance.camera_jitter.elevation_deg",
        "keep it between 0 and 90",
    ),
    "quality beyond the best": (
        put("nuisance", to={"noise": {"jpeg_quality": [50, 101]}}),
        "nuisance.noise.jpeg_quality[1]",
        "must be less than or equal to 100",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusal_names_file_key_and_mend(what: str, world: World, tmp_path: Path) -> None:
    change, key, mend = REFUSED[what]
    (tmp_path / "text.png").write_text("not a picture")
    change(world)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(world))
    with pytest.raises(SpecError) as caught:
        SceneSpec.load(file)
    (line,) = str(caught.value).splitlines()  # one complaint, not one for each way to read it
    assert line.startswith(f"{file}: {key}: ")
    assert mend in line


def test_every_wrong_key_is_named_at_once(world: World) -> None:
    world["camera"]["distance"] = -1
    world["tabel"] = {}
    with pytest.raises(SpecError) as caught:
        SceneSpec.build(world, source="mine.yaml")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "camera.distance",
        "tabel",
    ]


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        (b"", "it must start with keys like `name:`"),
        (b"- a list", "it must start with keys like `name:`"),
        (b"name: [1, 2\ntable: {", "in line 2, column 6; mend it there"),
        (b"\xff\xfe\x00\x80", "not readable as YAML"),
    ],
)
def test_file_that_is_no_spec(content: bytes, mend: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        SceneSpec.load(file)
    assert str(caught.value).startswith(f"{file}: ") and mend in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: no such file; .*objects, tabletop"):
        SceneSpec.load(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="is a folder; give the YAML file in it"):
        SceneSpec.load(tmp_path)


# --- what users bring ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(suffix, mode) for suffix in ("png", "webp") for mode in ("RGB", "L", "P", "RGBA")]
    + [("jpg", "RGB"), ("jpg", "L")],
)
def test_textures_of_any_usual_kind(suffix: str, mode: str, tmp_path: Path) -> None:
    shades = np.linspace(0, 255, 32 * 32 * 3).astype(np.uint8).reshape(32, 32, 3)
    picture = Image.fromarray(shades).convert(mode)
    picture.save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    found = read_texture(tmp_path / f"a.{suffix}")
    assert found.shape == (32, 32, 3) and found.dtype == np.uint8
    expected = np.asarray(picture.convert("RGB"), dtype=float)
    assert np.abs(found - expected).mean() < (4 if suffix == "jpg" else 0.01)


@pytest.mark.parametrize(
    ("mesh", "scale", "up_axis", "symmetry", "across"),
    [
        ("kaykit/pan_A.obj", 0.2, "y", "none", 0.3),
        ("kaykit/plate.obj", 0.25, "y", "continuous", 0.24),
        ("kenney_foodkit/mug.glb", 0.35, "y", "none", 0.12),
        ("ycb/024_bowl/textured.obj", 1.0, "z", "none", 0.16),
    ],
)
def test_foreign_meshes(
    foreign_meshes: Path,
    world: World,
    mesh: str,
    scale: float,
    up_axis: str,
    symmetry: str,
    across: float,
) -> None:
    item = {"name": "foreign", "mesh": str(foreign_meshes / mesh), "colour": [1, 1, 1]}
    item |= {"scale": scale, "up_axis": up_axis, "symmetry": symmetry}
    world["objects"].append(item)
    geometry = SceneSpec.build(world).geometries[-1]
    widths = np.subtract(geometry.upper, geometry.lower)[:2]
    assert max(widths) == pytest.approx(across, rel=0.05)
    assert geometry.lower[2] == pytest.approx(0, abs=1e-9)
    item["scale"] = scale * 1000
    with pytest.raises(SpecError, match=r"set `scale`"):
        SceneSpec.build(world)

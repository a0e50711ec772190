"""Objects as binary glTF: upright in every viewer, and a mesh that a SceneSpec takes back."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from renderer import SceneSpec
from renderer.glb import object_glb
from renderer.meshes import load_mesh


def header(content: bytes) -> dict[str, Any]:
    """The JSON of a GLB file, whose header is checked on the way."""
    magic, version, length, size, kind = struct.unpack("<4sIII4s", content[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(content), b"JSON")
    return json.loads(content[20 : 20 + size])


@pytest.mark.parametrize("name", ["tabletop", "objects"])
def test_stands_upright_with_its_true_size(name: str, tmp_path: Path) -> None:
    spec = SceneSpec.load(name)
    for c, (item, geometry) in enumerate(zip(spec.objects, spec.geometries, strict=True)):
        content = object_glb(spec, c)
        viewed = trimesh.load_scene(io.BytesIO(content), file_type="glb")  # y up, as glTF has it
        assert viewed.bounds[0, 1] == pytest.approx(0.0, abs=1e-6)
        assert viewed.bounds[1, 1] == pytest.approx(geometry.height, abs=1e-6)
        (tmp_path / f"{item.name}.glb").write_bytes(content)
        again = load_mesh(tmp_path / f"{item.name}.glb", up_axis="y")
        assert np.allclose(again.bounds, [geometry.lower, geometry.upper], atol=1e-3)
        if geometry.mesh is not None:
            assert again.volume == pytest.approx(geometry.mesh.volume, rel=1e-4)


def test_a_colour_is_given_as_light() -> None:
    """glTF's factors are linear: sRGB's middle grey is a fifth of the light."""
    spec = SceneSpec.load("tabletop")
    cup = header(object_glb(spec, 0))["materials"][0]["pbrMetallicRoughness"]
    # The sRGB standard's curve at 0.85, 0.30, 0.22, to within a byte's rounding.
    assert cup["baseColorFactor"] == pytest.approx([0.6938, 0.0732, 0.0395, 1.0], abs=4e-3)
    assert cup["metallicFactor"] == 0.0


def test_rims_are_sharp() -> None:
    """Where a box has an edge, its faces do not share a normal."""
    box = SceneSpec.load("objects")
    loaded = trimesh.load_scene(io.BytesIO(object_glb(box, 0)), file_type="glb")
    normals = next(iter(loaded.geometry.values())).vertex_normals
    assert len(normals) == 24
    assert np.allclose(np.abs(normals).max(axis=1), 1.0)


def test_a_mesh_keeps_its_texture(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (10, 200, 30)).save(tmp_path / "skin.png")
    (tmp_path / "roof.obj").write_text(
        "v -.1 -.1 0\nv .1 -.1 0\nv 0 .1 0\nv 0 0 .2\nvt 0 0\nvt 1 0\nvt 0.5 1\n"
        "f 1/1 3/3 2/2\nf 1/1 2/2 4/3\nf 2/1 3/2 4/3\nf 3/1 1/2 4/3\n"
    )
    (tmp_path / "roofs.yaml").write_text(
        "name: roofs\ntable: {half_size: [0.5, 0.5], colour: [1, 1, 1]}\n"
        "camera: {distance: 1.5, elevation_deg: 40, fovy_deg: 45, azimuth_deg: [0, 0]}\n"
        "objects: [{name: roof, mesh: roof.obj, colour: [1, 1, 1], texture: skin.png}]\n"
        "count: {max: 1}\nplacement: {extent: [0.3, 0.3]}\n"
    )
    content = object_glb(SceneSpec.load(tmp_path / "roofs.yaml"), 0)
    assert "TEXCOORD_0" in header(content)["meshes"][0]["primitives"][0]["attributes"]
    loaded = trimesh.load_scene(io.BytesIO(content), file_type="glb")
    picture = next(iter(loaded.geometry.values())).visual.material.baseColorTexture
    assert picture.convert("RGB").getpixel((1, 1)) == (10, 200, 30)

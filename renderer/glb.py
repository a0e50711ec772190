"""The objects of a SceneSpec as binary glTF, for viewers and planners.

glTF has y up: the file's one node turns our z-up mesh, so that it stands upright in every viewer.
A SceneSpec that takes such a file as a mesh says `up_axis: y`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from renderer.geometry import ObjectGeometry
from renderer.meshes import mujoco_mesh_arrays
from renderer.spec import ObjectClass, SceneSpec, read_texture

# From z up to glTF's y up.
TO_Y_UP = np.array(
    [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)


def object_glb(spec: SceneSpec, identity: int) -> bytes:
    """The GLB file of one class, metres, origin where the object's position is.

    A mesh keeps its texture; a box, sphere or cylinder has its texture's mean colour.

    Args:
        spec: the world.
        identity: index of the class.
    """
    item, geometry = spec.objects[identity], spec.geometries[identity]
    mesh = geometry.mesh.copy() if geometry.mesh is not None else _shape(item, geometry)
    colour = np.asarray(item.colour)
    picture, uv = None, getattr(mesh.visual, "uv", None)
    if item.texture is not None:
        pixels = read_texture(spec.resolve(item.texture))
        if geometry.mesh is not None and uv is not None:
            picture = Image.fromarray(pixels)
        else:
            colour = colour * pixels.mean(axis=(0, 1)) / 255.0
    material = PBRMaterial(
        name=item.name,
        baseColorFactor=[*_linear(colour), 1.0],
        baseColorTexture=picture,
        metallicFactor=0.0,
        roughnessFactor=1.0,
    )
    if picture is None:  # normals with creases, which the vertices of a texture would not fit
        arrays = mujoco_mesh_arrays(mesh)
        mesh = trimesh.Trimesh(
            arrays.vertices, arrays.faces, vertex_normals=arrays.normals, process=False
        )
    mesh.metadata.clear()
    mesh.visual = TextureVisuals(uv=uv if picture is not None else None, material=material)
    scene = trimesh.Scene()
    scene.add_geometry(mesh, node_name=item.name, geom_name=item.name, transform=TO_Y_UP)
    content: bytes = scene.export(file_type="glb", include_normals=True)
    return content


def _shape(item: ObjectClass, geometry: ObjectGeometry) -> trimesh.Trimesh:
    """A box, sphere or cylinder that stands on the table."""
    upper = geometry.upper
    if item.shape == "box":
        mesh: Any = trimesh.creation.box(extents=[2 * upper[0], 2 * upper[1], upper[2]])
    elif item.shape == "sphere":
        mesh = trimesh.creation.icosphere(subdivisions=3, radius=upper[0])
    else:
        mesh = trimesh.creation.cylinder(radius=upper[0], height=upper[2], sections=64)
    mesh.apply_translation([0.0, 0.0, geometry.height / 2])
    solid: trimesh.Trimesh = mesh
    return solid


def _linear(colour: NDArray[np.float64]) -> list[float]:
    """A colour of the screen (sRGB) as the amounts of light that glTF's factors are."""
    curve = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    values: list[float] = curve.tolist()
    return values

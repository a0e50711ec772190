"""Foreign meshes with their colours, whichever way their file says them.

A file may colour its faces by materials, by its vertices, or by pictures laid over it, and may do
all three in different parts. Here a mesh is one list of triangles, and any point of it has one
colour, as a screen shows it (sRGB).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from renderer.meshes import read_parts, surface_samples

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

WHITE = (1.0, 1.0, 1.0)
GREY = (0.6, 0.6, 0.6)  # of what has no colour


@dataclass(frozen=True, eq=False)
class ColouredMesh:
    """A mesh, any point of which has a colour: that of its corners, times that of a picture."""

    mesh: trimesh.Trimesh  # F faces; its `visual` says nothing
    corners: Floats  # [F, 3, 3] RGB in [0, 1] at the corners of each face
    uv: Floats  # [F, 3, 2] of the corners in the face's picture, v upwards
    picture: Indices  # [F] which of the pictures, -1 for none
    pictures: tuple[NDArray[np.uint8], ...]  # [H, W, 3] each
    coloured: bool  # whether the file says any colour at all
    notes: tuple[str, ...] = ()  # what of the file could not be used

    def colours(self, faces: Indices, weights: Floats) -> Floats:
        """Colours [N, 3] at points given by their face [N] and barycentric weights [N, 3]."""
        found = np.einsum("nk,nkc->nc", weights, self.corners[faces])
        at = np.einsum("nk,nkc->nc", weights, self.uv[faces])
        for index, pixels in enumerate(self.pictures):
            mine = self.picture[faces] == index
            found[mine] *= _looked_up(pixels, at[mine])
        return found

    def samples(self, count: int, *, seed: int) -> tuple[Floats, Floats, Floats]:
        """Points spread evenly at random, their normals and colours, [N, 3] each."""
        points, faces = surface_samples(self.mesh, count, seed=seed)
        triangles = np.asarray(self.mesh.triangles)[faces]
        weights = trimesh.triangles.points_to_barycentric(triangles, points)
        normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
        return points, normals, self.colours(faces, np.clip(weights, 0.0, 1.0))

    def moved(self, matrix: Floats) -> ColouredMesh:
        """The same at another place: `matrix` [4, 4] takes the points from here to there."""
        vertices = np.asarray(self.mesh.vertices) @ matrix[:3, :3].T + matrix[:3, 3]
        return replace(self, mesh=trimesh.Trimesh(vertices, self.mesh.faces, process=False))

    def painted(self, colour: tuple[float, float, float]) -> ColouredMesh:
        """The same all in one colour."""
        corners = np.broadcast_to(np.array(colour), self.corners.shape).copy()
        none = np.full(len(corners), -1)
        return replace(self, corners=corners, picture=none, pictures=(), coloured=True)


def load_coloured(path: str | Path) -> ColouredMesh:
    """Reads an OBJ, STL, PLY, GLB or glTF file with its colours, in its own lengths and axes.

    Raises:
        MeshError: the file cannot be used.
    """
    path = Path(path)
    parts = [_part(part, path) for part in read_parts(path)]
    offset, index = 0, 0
    vertices, faces, picture = [], [], []
    pictures: list[NDArray[np.uint8]] = []
    for part in parts:
        vertices.append(np.asarray(part.mesh.vertices))
        faces.append(np.asarray(part.mesh.faces) + offset)
        picture.append(np.where(part.picture >= 0, part.picture + index, -1))
        pictures += part.pictures
        offset, index = offset + len(part.mesh.vertices), index + len(part.pictures)
    used = np.concatenate(faces)
    mesh = trimesh.Trimesh(np.concatenate(vertices), used, process=False)
    return ColouredMesh(
        mesh,
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.uv for part in parts]),
        np.concatenate(picture),
        tuple(pictures),
        any(part.coloured for part in parts),
        tuple(dict.fromkeys([*_missing(path), *(note for part in parts for note in part.notes)])),
    )


def _part(part: trimesh.Trimesh, path: Path) -> ColouredMesh:
    """The colours of a part with one material, as its format means them."""
    faces = np.asarray(part.faces)
    linear = path.suffix.lower() in (".glb", ".gltf")  # section 3.9.2: factors are, pictures not
    visual: Any = part.visual
    material = getattr(visual, "material", None)
    corners = np.broadcast_to(np.array(WHITE), (len(faces), 3, 3)).copy()
    picture, uv = None, getattr(visual, "uv", None)
    coloured, notes = False, []
    if material is not None and not _made_up(material, path):
        picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        if picture is not None and (uv is None or len(uv) != len(part.vertices)):
            notes.append("has a texture, but no texture coordinates to lay it by")
            picture = None
        factor = getattr(material, "baseColorFactor", None)
        if factor is None and picture is None:
            factor = getattr(material, "diffuse", None)
        if factor is not None:
            corners *= _displayed(_unit(factor)[:3], linear)
        coloured = factor is not None or picture is not None
    own = _vertex_colours(part)
    if own is not None:
        corners *= _displayed(own, linear)[faces]
        coloured = True
    elif getattr(visual, "kind", None) == "face":
        corners *= _displayed(_unit(visual.face_colors)[:, :3], linear)[:, None]
        coloured = True
    if not coloured:
        corners *= np.array(GREY)
    at = np.zeros((len(faces), 3, 2))
    pictures: tuple[NDArray[np.uint8], ...] = ()
    if picture is not None and uv is not None:
        at = np.asarray(uv, dtype=np.float64)[:, :2][faces]
        pictures = (np.asarray(picture.convert("RGB")),)
    plain = trimesh.Trimesh(part.vertices, faces, process=False)
    index = np.full(len(faces), len(pictures) - 1)
    return ColouredMesh(plain, corners, at, index, pictures, coloured, tuple(notes))


def _made_up(material: Any, path: Path) -> bool:
    """Whether the reader made the material up because the file's own is missing."""
    return path.suffix.lower() == ".obj" and not any(file.is_file() for file in _libraries(path))


def _libraries(path: Path) -> Iterator[Path]:
    """The material files that an OBJ names."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("mtllib "):
                yield path.parent / line.removeprefix("mtllib ").strip()


def _missing(path: Path) -> Iterator[str]:
    """What an OBJ names beside it that is not there."""
    if path.suffix.lower() != ".obj":
        return
    for library in _libraries(path):
        if not library.is_file():
            yield f"its material file {library.name} is missing"
            continue
        for line in library.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, rest = line.strip().partition(" ")
            names = {rest.strip(), rest.split()[-1] if rest.split() else ""}  # options come before
            there = any((library.parent / name).is_file() for name in names)
            if key.lower() == "map_kd" and not there:
                yield f"its texture {rest.strip()} is missing"


def _vertex_colours(part: trimesh.Trimesh) -> Floats | None:
    """Colours [V, 3] of the vertices, as the file has them."""
    visual: Any = part.visual
    if getattr(visual, "kind", None) == "vertex":
        return _unit(visual.vertex_colors)[:, :3]
    for attributes in (getattr(visual, "vertex_attributes", {}), part.vertex_attributes):
        colour = np.asarray(attributes.get("color", ())) if attributes is not None else np.empty(0)
        if len(colour) == len(part.vertices):
            return _unit(colour)[:, :3]
    return None


def _unit(values: Any) -> Floats:
    """Colours in [0, 1], of bytes or of such."""
    array = np.asarray(values)
    scale = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1.0
    if array.dtype.kind == "i":
        scale = 255.0
    return np.clip(array.astype(np.float64) / scale, 0.0, 1.0)


def _displayed(colours: Floats, linear: bool) -> Floats:
    """Colours as a screen shows them; `linear` ones are amounts of light (IEC 61966-2-1)."""
    if not linear:
        return colours
    curved = 1.055 * np.power(np.maximum(colours, 0.0031308), 1 / 2.4) - 0.055
    return np.where(colours <= 0.0031308, 12.92 * colours, curved)


def _looked_up(pixels: NDArray[np.uint8], uv: Floats) -> Floats:
    """The colours [N, 3] of a picture at `uv` [N, 2], between its pixels, repeated beyond it."""
    height, width = pixels.shape[:2]
    x = uv[:, 0] * width - 0.5
    y = (1.0 - uv[:, 1]) * height - 0.5
    left, top = np.floor(x), np.floor(y)
    found = np.zeros((len(uv), 3))
    for dx in (0, 1):
        for dy in (0, 1):
            share = np.abs(1 - dx - (x - left)) * np.abs(1 - dy - (y - top))
            column, row = (left + dx).astype(int) % width, (top + dy).astype(int) % height
            found += share[:, None] * pixels[row, column] / 255.0
    return found

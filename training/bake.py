"""Foreign meshes as a SceneSpec takes them: metres, z up, few triangles, one colour or one texture.

Colours become the simplest of three things that shows them: one colour; a palette, where every
face has one; or a picture in which every face has a patch of its own, so that it does not matter
how the file's own pictures were laid over it, nor that a simplified mesh has other faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import fast_simplification
import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from renderer.detail import deviation, simplified
from renderer.windows import Pixels, pack
from training.surface import ColouredMesh

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]

HEAVY = 2500  # triangles; with more, a mesh is simplified
TOO_MANY = 40_000  # of which even looking for how far to go takes long
PRECISION = 0.006  # of the longest side, that a simplified surface may be off by

ALIKE = 0.02  # distance in RGB within which two colours are one
PALETTE = 256  # colours at most in a palette
BLOCK = 4  # px, side of a palette's colours: far enough from each other for any filter

TEXEL = 1 / 160  # of the longest side; networks see objects with some 30 px
GAP = 2  # px around each patch that continue it
SIDES = (256, 512, 1024, 2048)  # px, of pictures
SAMPLES = 200_000  # on the original, from which patches of a simplified mesh are coloured
NEAREST = 6  # of them that are looked at for each


@dataclass(frozen=True, eq=False)
class Baked:
    """What is written of one object."""

    mesh: trimesh.Trimesh  # m, z up
    uv: Floats | None  # [F, 3, 2] of each face's corners, v upwards
    texture: Bytes | None  # [H, W, 3]
    colour: tuple[float, float, float]  # of the whole, or white where there is a texture
    triangles: int  # that there were
    off: float  # m, that the surface is off by: the Hausdorff distance from what there was

    def write(self, folder: Path, name: str) -> tuple[str, str | None]:
        """Writes `meshes/NAME.obj` and its texture; returns their paths within the folder."""
        (folder / "meshes").mkdir(parents=True, exist_ok=True)
        mesh = f"meshes/{name}.obj"
        (folder / mesh).write_text(_obj(self), encoding="utf-8")
        if self.texture is None:
            return mesh, None
        (folder / "textures").mkdir(exist_ok=True)
        texture = f"textures/{name}.png"
        Image.fromarray(self.texture).save(folder / texture, optimize=True)
        return mesh, texture


def bake(item: ColouredMesh) -> Baked:
    """Makes of a mesh that stands where it is to stand, in metres, what a SceneSpec takes."""
    triangles = len(item.mesh.faces)
    mesh, off = item.mesh, 0.0
    if triangles > HEAVY:
        mesh, off = _lighter(item.mesh)
    same = mesh is item.mesh
    _, _, seen = item.samples(4000, seed=3)
    mean = seen.mean(axis=0)
    if np.quantile(np.linalg.norm(seen - mean, axis=1), 0.999) <= ALIKE:
        return Baked(mesh, None, None, _colour(mean), triangles, off)
    uv, texture = _palette(item) if same else (None, None)
    if uv is None:
        uv, texture = _patches(item, mesh, same, mean)
    return Baked(mesh, uv, texture, (1.0, 1.0, 1.0), triangles, off)


def _lighter(mesh: trimesh.Trimesh) -> tuple[trimesh.Trimesh, float]:
    """The mesh with fewer triangles, and how far [m] it is off."""
    tolerance = PRECISION * float(mesh.extents.max())
    start = mesh
    if len(mesh.faces) > TOO_MANY:
        welded = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        welded.merge_vertices(merge_tex=True, merge_norm=True)
        points, faces = fast_simplification.simplify(
            np.asarray(welded.vertices),
            np.asarray(welded.faces, dtype=np.int64),
            target_count=TOO_MANY,
        )
        start = trimesh.Trimesh(points, faces, process=False)
    found = simplified(start, tolerance)
    return found, 0.0 if found is mesh else deviation(mesh, found)


def _palette(item: ColouredMesh) -> tuple[Floats | None, Bytes | None]:
    """Texture coordinates and picture of a mesh whose faces have one colour each; or nothing."""
    count = len(item.mesh.faces)
    inside = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [1 / 3] * 3])
    faces = np.repeat(np.arange(count), len(inside))
    colours = item.colours(faces, np.tile(inside, (count, 1))).reshape(count, len(inside), 3)
    if np.ptp(colours, axis=1).max() > ALIKE:
        return None, None
    levels = np.round(colours.mean(axis=1) * 255).astype(np.uint8)
    palette, index = np.unique(levels, axis=0, return_inverse=True)
    if len(palette) > PALETTE:
        return None, None
    side = int(np.ceil(np.sqrt(len(palette))))
    # What is left over is the mean: exports that cannot show a texture take that of the picture.
    blocks = np.tile(levels.mean(axis=0).astype(np.uint8), (side * side, 1))
    blocks[: len(palette)] = palette
    texture = blocks.reshape(side, side, 3).repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    row, column = np.divmod(index.reshape(-1), side)
    at = np.stack([(column + 0.5) / side, 1 - (row + 0.5) / side], axis=-1)
    return np.repeat(at[:, None], 3, axis=1), np.ascontiguousarray(texture)


def _patches(
    item: ColouredMesh, mesh: trimesh.Trimesh, same: bool, mean: Floats
) -> tuple[Floats, Bytes]:
    """Texture coordinates of a mesh's faces, and the picture with a patch for each.

    A face lies in its patch with the longest side along x. Around it the patch goes on in the
    colours of its edge, so that neighbours do not shine through where it is seen from afar.
    """
    flat = _laid_flat(np.asarray(mesh.triangles, dtype=np.float64))
    texel = TEXEL * float(mesh.extents.max())
    while (found := _packed(flat, texel)) is None:
        texel *= 1.2
    side, places, size = found
    pixels = Pixels.of(torch.from_numpy(np.concatenate([places, size], axis=1)))
    face, x, y = (value.numpy() for value in (pixels.window, pixels.x, pixels.y))
    at = np.stack([x, y], axis=-1) + 0.5 - places[face] - GAP
    weights = _weights(flat[face] / texel, at)
    colours = item.colours(face, weights) if same else _nearest(item, mesh, face, weights)
    texture = np.tile(np.round(255 * mean).astype(np.uint8), (side, side, 1))
    texture[y, x] = np.round(255 * np.clip(colours, 0.0, 1.0)).astype(np.uint8)
    uv = (flat / texel + (places + GAP)[:, None]) / side
    uv[..., 1] = 1 - uv[..., 1]
    return uv, texture


def _laid_flat(triangles: Floats) -> Floats:
    """The corners [F, 3, 2] of triangles in their own planes, the longest side along x from 0."""
    edges = np.roll(triangles, -1, axis=1) - triangles
    lengths = np.linalg.norm(edges, axis=2)
    rows, longest = np.arange(len(triangles)), lengths.argmax(axis=1)
    along = edges[rows, longest] / np.maximum(lengths[rows, longest], 1e-30)[:, None]
    normal = np.cross(edges[:, 0], edges[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    arms = triangles - triangles[rows, longest][:, None]
    axes = np.stack([along, np.cross(normal, along)], axis=-1)  # [F, 3, 2]
    flat: Floats = np.maximum(arms @ axes, 0.0)  # below 0 by rounding only
    return flat


def _packed(flat: Floats, texel: float) -> tuple[int, Indices, Indices] | None:
    """The side of a picture that has room for all patches, their places and sizes, [F, 2] px."""
    size = np.maximum(np.ceil(flat.max(axis=1) / texel), 1).astype(np.int64) + 2 * GAP
    for side in SIDES:
        if size.max() > side or size.prod(axis=1).sum() > side**2:
            continue
        places = np.array(pack([(int(wide), int(high)) for wide, high in size], side, side))
        if places[:, 0].max() == 0:
            return side, places[:, 1:], size
    return None


def _weights(corners: Floats, points: Floats) -> Floats:
    """Barycentric weights [N, 3] of points [N, 2] in triangles [N, 3, 2], nearly of the nearest."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    one, other, away = b - a, c - a, points - a
    area = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    area = np.where(np.abs(area) > 1e-12, area, np.inf)  # a sliver is all its first corner
    second = (away[:, 0] * other[:, 1] - away[:, 1] * other[:, 0]) / area
    third = (one[:, 0] * away[:, 1] - one[:, 1] * away[:, 0]) / area
    weights = np.clip(np.stack([1 - second - third, second, third], axis=-1), 0.0, 1.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _nearest(item: ColouredMesh, mesh: trimesh.Trimesh, face: Indices, weights: Floats) -> Floats:
    """Colours [N, 3] of the original where it is nearest to points of a simplified mesh."""
    triangles = np.asarray(mesh.triangles)
    points = np.einsum("nk,nkd->nd", weights, triangles[face])
    sides = triangles[face, 1:] - triangles[face, :1]
    normals = np.cross(sides[:, 0], sides[:, 1])
    there, facing, colours = item.samples(SAMPLES, seed=4)
    _, near = cKDTree(there).query(points, k=NEAREST)
    # Of thin walls, the side that faces the same way.
    agree = (facing[near] * normals[:, None]).sum(axis=2) > 0
    first = np.where(agree.any(axis=1), agree.argmax(axis=1), 0)
    found: Floats = colours[near[np.arange(len(near)), first]]
    return found


def _colour(mean: Floats) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 3) for value in np.clip(mean, 0.0, 1.0))
    return red, green, blue


def _obj(baked: Baked) -> str:
    """The mesh as an OBJ file, corners of one place sharing one vertex."""
    mesh = baked.mesh
    lines = ["# metres, z up"]
    points, index = np.unique(np.round(mesh.vertices, 7) + 0.0, axis=0, return_inverse=True)
    faces = index.reshape(-1)[np.asarray(mesh.faces)] + 1
    lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in points.tolist()]
    if baked.uv is None:
        lines += [f"f {a} {b} {c}" for a, b, c in faces.tolist()]
        return "\n".join(lines) + "\n"
    at, where = np.unique(np.round(baked.uv.reshape(-1, 2), 6), axis=0, return_inverse=True)
    lines += [f"vt {u:.6g} {v:.6g}" for u, v in at.tolist()]
    laid = where.reshape(-1, 3) + 1
    lines += [
        "f " + " ".join(f"{v}/{t}" for v, t in zip(corners, texels, strict=True))
        for corners, texels in zip(faces.tolist(), laid.tolist(), strict=True)
    ]
    return "\n".join(lines) + "\n"

"""Meshes: loading them upright, what of their shape matters on a table, handing them to MuJoCo.

A mesh that stands on the table has z up, its lowest point at z = 0, and turns (yaw) about its own
z axis, the line x = y = 0. Lengths are metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Indices = NDArray[np.int32]

FORMATS = (".obj", ".stl", ".glb", ".gltf", ".ply")

# Proper rotations (never mirrors) that bring the named axis to +z.
_TO_Z: dict[str, list[list[int]]] = {
    "x": [[0, 0, -1], [0, 1, 0], [1, 0, 0]],
    "-x": [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
    "y": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
    "-y": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "z": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "-z": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
}


class MeshError(ValueError):
    """A mesh file that cannot be used; the message names the file and what to do about it."""


# --- loading ---------------------------------------------------------------------------------


def load_mesh(path: str | Path, *, scale: float = 1.0, up_axis: str = "z") -> trimesh.Trimesh:
    """Load an OBJ, STL, GLB/GLTF or PLY file and stand it upright on the table.

    The axis `up_axis` ("x", "y", "z", "-x", "-y" or "-z") is rotated to z, lengths are multiplied
    by `scale` (0.001 for a file in millimetres), and the mesh is lifted so that its lowest point
    is z = 0. Its x and y stay as the file has them, so the file's origin is the point that an
    object's position names and that yaw turns about. GLB and GLTF are y-up by convention: give
    them `up_axis="y"`. A file with several parts becomes one mesh. Texture and vertex colours
    stay in `.visual`. Raises MeshError.
    """
    path = Path(path)
    if up_axis not in _TO_Z:
        raise MeshError(f"{path}: up_axis is {up_axis!r}; use one of {', '.join(_TO_Z)}")
    if not (np.isfinite(scale) and scale > 0):
        raise MeshError(f"{path}: scale is {scale}; use a positive number")
    mesh = _read(path)
    vertices = turned_upright(np.asarray(mesh.vertices, dtype=np.float64), up_axis) * scale
    used = vertices[np.unique(mesh.faces)]
    extents = np.ptp(used, axis=0)
    if extents.min() <= 1e-6 * extents.max() or extents.max() <= 1e-6:
        size = " x ".join(f"{e:.3g}" for e in extents)
        raise MeshError(f"{path}: its size is {size} m, flat or empty; give it a solid shape")
    vertices[:, 2] -= used[:, 2].min()
    mesh.vertices = vertices
    return mesh


def turned_upright(points: Floats, up_axis: str) -> Floats:
    """Points [N, 3], turned so that their axis `up_axis` ("x", "-x", …) becomes z."""
    turned: Floats = points @ np.array(_TO_Z[up_axis], dtype=np.float64).T
    return turned


def read_parts(path: str | Path) -> list[trimesh.Trimesh]:
    """The parts of a mesh file where its scene puts them, each with the one material that it has.

    Lengths and axes are the file's own. Raises MeshError.
    """
    path = Path(path)
    scene: Any = _opened(path, force="scene")
    parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if not parts:
        raise MeshError(f"{path}: has no faces; export it as a surface of triangles, not points")
    for part in parts:
        _check_finite(path, part)
    return parts


def _read(path: Path) -> trimesh.Trimesh:
    mesh: Any = _opened(path, force="mesh")
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise MeshError(f"{path}: has no faces; export it as a surface of triangles, not points")
    _check_finite(path, mesh)  # before merging, which drops such faces in silence
    # Readers split a vertex wherever the file gives it two normals; only texture seams may stay.
    mesh.merge_vertices(merge_norm=True)
    return mesh


def _opened(path: Path, *, force: Literal["mesh", "scene"]) -> Any:
    if not path.is_file():
        raise MeshError(f"{path}: no such file; check the path, it is relative to the scene file")
    if path.suffix.lower() not in FORMATS:
        raise MeshError(
            f"{path}: cannot read this format; convert it to one of {', '.join(FORMATS)}"
        )
    try:
        return trimesh.load(path, force=force, process=False)
    except Exception as error:  # the readers of the formats raise whatever they trip over
        raise MeshError(f"{path}: cannot be read ({error}); export the mesh again") from error


def _check_finite(path: Path, mesh: trimesh.Trimesh) -> None:
    if not np.isfinite(mesh.vertices).all():
        raise MeshError(f"{path}: some vertices are not finite; export the mesh again")


# --- shape -----------------------------------------------------------------------------------


def height(mesh: trimesh.Trimesh) -> float:
    """Height of the mesh's top above the table, m."""
    return float(mesh.bounds[1, 2])


def bounding_radius(mesh: trimesh.Trimesh) -> float:
    """Radius [m] of the upright cylinder about the mesh's own z axis that holds all of it."""
    vertices = np.asarray(mesh.vertices)[np.unique(mesh.faces)]
    return float(np.hypot(vertices[:, 0], vertices[:, 1]).max())


def footprint_circles(mesh: trimesh.Trimesh, n: int = 8) -> Floats:
    """At most `n` discs in the table plane that together cover the mesh's footprint.

    The footprint is the projection on z = 0, holes filled. Returns [P, 3] (x, y, radius) in m,
    1 <= P <= n, the largest first. Two objects whose discs do not meet do not overlap; if discs
    meet, the objects overlap or nearly so. Deterministic.

    The first disc is the one that covers most of the footprint less what it covers beside it (the
    body of a pan); what is left (its handle) is shared out among as many more as earn their place.
    Discs grow in the end until no projected vertex is left out.
    """
    points, cells, pitch, depth = _footprint(mesh)
    first = _main_disc(cells, depth, pitch)
    first[:, 2] += pitch  # its own edge must not be left over as a crescent
    rest = cells[_outside(cells, first)[:, 0] > 0]
    choices = [first]
    if len(rest) and n > 1:
        counts = range(1, min(n - 1, len(rest)) + 1)
        choices = [np.concatenate([first, _refitted(rest, _shared(rest, k))]) for k in counts]
    # Another disc has to save as much ground as 2 % of the footprint.
    price = 0.02 * len(cells) * pitch**2
    costs = [np.pi * np.square(discs[:, 2]).sum() + price * len(discs) for discs in choices]
    discs = _refitted(points, choices[int(np.argmin(costs))])
    discs[:, 2] = discs[:, 2] * (1 + 1e-9) + 1e-9  # so that the points on the edge are inside
    return discs[np.argsort(-discs[:, 2], kind="stable")]


def _footprint(mesh: trimesh.Trimesh) -> tuple[Floats, Floats, float, Floats]:
    """Points all over the footprint [N, 2]; its raster: cells [M, 2], pitch, depth inside [M]."""
    flat = np.asarray(mesh.vertices, dtype=np.float64) * [1.0, 1.0, 0.0]
    flat = flat[np.unique(mesh.faces)]
    pitch = float(np.ptp(flat, axis=0).max()) / 80
    triangles = np.asarray(mesh.triangles, dtype=np.float64) * [1.0, 1.0, 0.0]
    soup, _ = trimesh.remesh.subdivide_to_size(
        triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3), pitch, max_iter=12
    )
    points = np.unique(np.concatenate([flat, soup])[:, :2], axis=0)
    low = points.min(axis=0) - 1.5 * pitch
    index = np.floor((points - low) / pitch).astype(np.int64)
    raster = np.zeros(index.max(axis=0) + 2, dtype=bool)
    raster[tuple(index.T)] = True
    raster = ndimage.binary_fill_holes(raster)
    depth = ndimage.distance_transform_edt(raster) * pitch
    where = np.argwhere(raster)
    return points, low + (where + 0.5) * pitch, pitch, np.asarray(depth[raster])


def _main_disc(cells: Floats, depth: Floats, pitch: float) -> Floats:
    """The disc [1, 3] that covers most cells less the cells' worth that it covers beside them."""
    centres = cells[:: max(1, len(cells) // 1000)]  # bounds the distance matrix below
    depths = depth[:: max(1, len(cells) // 1000)]
    best = cells[np.argmax(depth)], float(depth.max())
    for _ in range(2):  # coarsely everywhere, then finely about the best
        distance = np.linalg.norm((centres[:, None] - cells[None]).astype(np.float32), axis=-1)
        gains = []
        for stretch in (1.0, 1.1, 1.25, 1.5):
            radius = depths * stretch
            covered = (distance <= radius[:, None]).sum(axis=1)
            gain = 2 * covered - np.pi * (radius / pitch) ** 2
            k = int(np.argmax(gain))
            gains.append((float(gain[k]), (centres[k], float(radius[k]))))
        best = max(gains, key=lambda choice: choice[0])[1]
        near = np.linalg.norm(cells - best[0], axis=1) < 5 * pitch
        centres, depths = cells[near], depth[near]
    return np.array([[*best[0], best[1]]])


def _shared(points: Floats, k: int) -> Floats:
    """Points [N, 2] shared among k discs by k-means, started from points far from each other."""
    seeds = [points[np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1))]]
    while len(seeds) < k:
        gaps = np.linalg.norm(points[:, None] - np.array(seeds)[None], axis=-1).min(axis=1)
        seeds.append(points[np.argmax(gaps)])
    centres = np.array(seeds)
    for _ in range(15):
        owner = np.argmin(np.linalg.norm(points[:, None] - centres[None], axis=-1), axis=1)
        centres = np.array([points[owner == j].mean(axis=0) for j in np.unique(owner)])
    return np.concatenate([centres, np.zeros((len(centres), 1))], axis=-1)


def _outside(points: Floats, discs: Floats) -> Floats:
    """How far [N, P] each point is outside of each disc; negative inside."""
    gaps: Floats = np.linalg.norm(points[:, None] - discs[None, :, :2], axis=-1) - discs[:, 2]
    return gaps


def _refitted(points: Floats, discs: Floats) -> Floats:
    """Discs that cover points [N, 2], each fitted to the points that it is the one to take.

    A point goes to the largest disc that holds it, or else to the one that has to grow least.
    Each disc is nearly the smallest around its points, by the steps of Badoiu and Clarkson.
    """
    gaps = _outside(points, discs)
    owner = np.argmin(np.where(gaps <= 0, -discs[:, 2], gaps), axis=1)
    fitted = []
    for k in np.unique(owner):
        mine = points[owner == k]
        centre = (mine.min(axis=0) + mine.max(axis=0)) / 2
        for step in range(20, 120):
            farthest = np.argmax(((mine - centre) ** 2).sum(axis=1))
            centre = centre + (mine[farthest] - centre) / step
        fitted.append([*centre, np.linalg.norm(mine - centre, axis=1).max()])
    return np.array(fitted)


# --- symmetry --------------------------------------------------------------------------------


def symmetry_error(mesh: trimesh.Trimesh, order: float) -> float:
    """How far [m] the mesh moves off itself when turned by 2 pi / order about its z axis.

    The 99th percentile, over points sampled on the surface, of the distance from a turned point
    to the unturned surface: an outlier or two of a bad mesh do not count, a small handle does.
    Looks at the shape only, not at texture or colour.
    """
    points, _ = surface_samples(mesh, 2000, seed=1)
    near, faces = surface_samples(mesh, 20000, seed=2)
    angle = 2 * np.pi / order
    c, s = np.cos(angle), np.sin(angle)
    turned = points @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    # Distance to the true triangles under the nearest samples, not to the samples themselves,
    # which would put the sample spacing under every answer.
    k = 8
    _, neighbour = cKDTree(near).query(turned, k=k)
    triangles = np.asarray(mesh.triangles)[faces[neighbour].reshape(-1)]
    repeated = np.repeat(turned, k, axis=0)
    closest = np.asarray(trimesh.triangles.closest_point(triangles, repeated))
    distance = np.linalg.norm(closest - repeated, axis=1).reshape(-1, k).min(axis=1)
    return float(np.quantile(distance, 0.99))


def surface_samples(
    mesh: trimesh.Trimesh, count: int, *, seed: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Points [N, 3] spread evenly over the surface at random, and the face [N] of each."""
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=seed)[:2]
    return np.asarray(points, dtype=np.float64), np.asarray(faces, dtype=np.int64)


def has_symmetry(mesh: trimesh.Trimesh, order: int | None, *, tolerance: float = 0.02) -> bool:
    """Whether the shape looks the same turned by 2 pi / order about its z axis.

    `order` None means continuous: the same at every angle. `tolerance` is a fraction of the
    bounding radius, so that a cylinder of 16 or more facets still counts as round.
    """
    if order is not None and order < 1:
        raise ValueError(f"order is {order}; use 1 or more, or None for continuous")
    if order == 1:
        return True
    allowed = tolerance * bounding_radius(mesh)
    # Three turns that no low order divides, so facets and handles cannot hide between them.
    turns = (float(order),) if order is not None else (2.618034, 4.236068, 9.4721)
    return all(symmetry_error(mesh, turn) <= allowed for turn in turns)


# --- normals, and MuJoCo ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class MeshArrays:
    """A mesh as MuJoCo's MjSpec takes it.

    MuJoCo 4.0 ignores `userfacenormal`, so a vertex is repeated for each of its normals; it does
    heed indices for texture coordinates.
    """

    vertices: Floats  # [V, 3] m
    faces: Indices  # [F, 3] into vertices
    normals: Floats  # [V, 3] unit
    texcoords: Floats | None  # [T, 2], v downwards as MuJoCo has it; None without texture
    face_texcoords: Indices | None  # [F, 3] into texcoords

    @property
    def face_normals(self) -> Indices:
        """Indices [F, 3] into normals: those of the vertices."""
        return self.faces

    def spec_fields(self) -> dict[str, NDArray[Any]]:
        """Keyword arguments for `spec.add_mesh`, flattened as it wants them."""
        fields: dict[str, NDArray[Any]] = {
            "uservert": self.vertices.reshape(-1),
            "userface": self.faces.reshape(-1),
            "usernormal": self.normals.reshape(-1),
        }
        if self.texcoords is not None and self.face_texcoords is not None:
            fields["usertexcoord"] = self.texcoords.reshape(-1)
            fields["userfacetexcoord"] = self.face_texcoords.reshape(-1)
        return fields


def mujoco_mesh_arrays(mesh: trimesh.Trimesh, *, crease_deg: float = 40.0) -> MeshArrays:
    """The mesh's arrays for `spec.add_mesh(name=..., **arrays.spec_fields())`.

    Left alone, MuJoCo smooths normals across every edge, which blurs rims; these have a crease.
    Both OpenGL and MuJoCo Warp shade with them. Faces keep their order.
    """
    positions, faces = _merged(mesh)
    normals, face_normals = corner_normals(mesh, crease_deg=crease_deg)
    corners = np.stack([faces.reshape(-1), face_normals.reshape(-1)], axis=-1)
    split, index = np.unique(corners, axis=0, return_inverse=True)
    texcoords, face_texcoords = None, None
    uv: Any = getattr(mesh.visual, "uv", None)
    if uv is not None and len(uv) == len(mesh.vertices):
        texcoords = np.asarray(uv, dtype=np.float64)[:, :2] * [1.0, -1.0] + [0.0, 1.0]
        face_texcoords = np.asarray(mesh.faces, dtype=np.int32)
    return MeshArrays(
        vertices=positions[split[:, 0]],
        faces=index.reshape(-1, 3).astype(np.int32),
        normals=normals[split[:, 1]],
        texcoords=texcoords,
        face_texcoords=face_texcoords,
    )


def _merged(mesh: trimesh.Trimesh) -> tuple[Floats, Indices]:
    """Positions and faces with vertices at one place merged (files split them at seams)."""
    positions = np.asarray(mesh.vertices, dtype=np.float64)
    grid = np.round(positions / max(float(np.ptp(positions, axis=0).max()), 1e-12) * 1e7)
    _, first, inverse = np.unique(grid, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # keep the file's order
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    faces = rank[inverse.reshape(-1)][np.asarray(mesh.faces)]
    return positions[first[order]], faces.astype(np.int32)


def corner_normals(mesh: trimesh.Trimesh, *, crease_deg: float = 40.0) -> tuple[Floats, Indices]:
    """Shading normals for each corner of each face: smooth on round walls, sharp at rims.

    A corner's normal is the area-weighted mean over the faces around its vertex that meet the
    corner's own face within `crease_deg`. Returns distinct normals [N, 3] and, for each face,
    three indices [F, 3] into them. Vertices at one place count as one, whatever the texture.
    """
    vertices, faces = _merged(mesh)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    weighted = np.cross(b - a, c - a)  # [F, 3], length twice the area
    length = np.linalg.norm(weighted, axis=1, keepdims=True)
    unit = np.divide(weighted, length, out=np.zeros_like(weighted), where=length > 0)
    # Every ordered pair of corners at one vertex, by a sparse product: corner -> vertex -> corner.
    corners = np.arange(faces.size)
    at = coo_array((np.ones(faces.size), (corners, faces.reshape(-1)))).tocsr()
    pairs = (at @ at.T).tocoo()
    mine, other = pairs.coords[0] // 3, pairs.coords[1] // 3
    smooth = (unit[mine] * unit[other]).sum(axis=1) >= np.cos(np.radians(crease_deg))
    smooth |= mine == other
    total = np.zeros((faces.size, 3))
    np.add.at(total, pairs.coords[0][smooth], weighted[other[smooth]])
    size = np.linalg.norm(total, axis=1, keepdims=True)
    # A face without area has no direction of its own: straight up is as good as any.
    total = np.where(size > 0, total / np.where(size > 0, size, 1.0), [0.0, 0.0, 1.0])
    normals, index = np.unique(np.round(total, 5) + 0.0, axis=0, return_inverse=True)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return normals, index.reshape(-1, 3).astype(np.int32)

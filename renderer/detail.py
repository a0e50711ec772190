"""Levels of detail: meshes with fewer triangles that look the same at the size of a picture.

Where MuJoCo's OpenGL runs in software, a triangle costs the same whether it covers a pixel or a
hundredth of one. Finite differences draw an object again and again, in windows of a few hundred
pixels; there most of its triangles are too many.

The quadric error metric (Garland and Heckbert 1997) chooses which edges to collapse, and how far
the outcome is off is measured, not believed: a level is used only if no point of either surface is
farther from the other than a tolerance.
"""

from __future__ import annotations

import math
from functools import lru_cache

import fast_simplification
import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from renderer.meshes import surface_samples
from renderer.spec import SceneSpec

Floats = NDArray[np.float64]

PIXEL_SHARE = 1 / 8  # of a pixel, that a simplified surface may be off by

LEVELS = 12  # at most so many times are the triangles made fewer,
RATIO = 0.8  # each time to this share of them,
FEWEST = 60  # and not to less than these
AGGRESSION = 3.0  # of fast_simplification: slow and close, where 7 is fast and far off

# In barycentric coordinates: just inside the corners, the middles of the sides, the centre.
MARKS = np.array(
    [
        *([0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.01, 0.01, 0.98]),
        *([0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]),
        [1 / 3, 1 / 3, 1 / 3],
    ]
)
POINTS, SAMPLES = 2000, 20000  # on one surface, and on the other
NEAREST = 8  # samples that are looked at for each point
CLOSELY, CLOSE_NEAREST = 16, 512  # points that are looked at again at a time, and how closely


def pixel_tolerance(spec: SceneSpec, height: int) -> float:
    """How far [m] a surface may be off in pictures `height` px high: an eighth of a pixel.

    Of a pixel's footprint at the nearest place where an object can be, of any size: half way to
    the camera where objects can come closer than that.

    Args:
        spec: the world.
        height: of a picture, px.
    """
    camera, extent = spec.camera, spec.placement.extent
    elevation = math.radians(camera.elevation_deg)
    beyond = max(geometry.radius for geometry in spec.geometries)
    reach = math.hypot(*(abs(camera.target[axis]) + extent[axis] for axis in range(2))) + beyond
    rise = max(geometry.height for geometry in spec.geometries) - camera.target[2]
    towards = reach * math.cos(elevation) + max(0.0, rise) * math.sin(elevation)
    nearest = max(camera.distance - towards, camera.distance / 2)
    return PIXEL_SHARE * 2 * nearest * math.tan(math.radians(camera.fovy_deg) / 2) / height


@lru_cache(maxsize=64)
def simplified(mesh: trimesh.Trimesh, tolerance: float) -> trimesh.Trimesh:
    """The mesh with as few triangles as keep its surface within `tolerance` m of where it is.

    Only the shape is kept: texture coordinates are dropped. The mesh itself where no level is close
    enough, as with a coarse one.

    Args:
        mesh: any triangles; deterministic, and remembered while the mesh is the same object.
        tolerance: m.
    """
    welded = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    welded.merge_vertices(merge_tex=True, merge_norm=True)
    points, faces = np.asarray(welded.vertices), np.asarray(welded.faces, dtype=np.int64)
    counts = [round(len(faces) * RATIO**level) for level in range(LEVELS + 1)]
    best, low, high = mesh, 1, sum(count >= FEWEST for count in counts)
    while low < high:  # by halves: what is coarser is farther off, or nearly always
        level = (low + high) // 2
        fewer, kept = fast_simplification.simplify(
            points, faces, target_count=counts[level], agg=AGGRESSION
        )
        found = trimesh.Trimesh(fewer, kept, process=False)
        if len(found.faces) and deviation(mesh, found) <= tolerance:
            best, low = found, level + 1
        else:
            high = level
    return best


def deviation(one: trimesh.Trimesh, other: trimesh.Trimesh) -> float:
    """How far [m] the surfaces are apart where they are farthest: their Hausdorff distance.

    Over the vertices of both and points sampled on them.
    """
    return max(_farthest(one, other), _farthest(other, one))


def _farthest(mesh: trimesh.Trimesh, other: trimesh.Trimesh) -> float:
    """How far the points of `mesh` are from the surface of `other`, at most."""
    points, _ = surface_samples(mesh, POINTS, seed=1)
    points = np.concatenate([points, np.asarray(mesh.vertices)[np.unique(mesh.faces)]])
    near, faces = surface_samples(other, SAMPLES, seed=2)
    triangles = np.asarray(other.triangles)
    # Small triangles and slivers may have no sample of their own: corners and middles of all.
    marks = np.einsum("mk,nkd->mnd", MARKS, triangles).reshape(-1, 3)
    tree = cKDTree(np.concatenate([near, marks]))
    faces = np.concatenate([faces, np.tile(np.arange(len(triangles)), len(MARKS))])

    def distance(chosen: Floats, nearest: int) -> Floats:
        """From points [N, 3] to the triangles under so many samples near each: [N] m."""
        _, neighbour = tree.query(chosen, k=min(nearest, tree.n))
        candidates = triangles[faces[neighbour].reshape(-1)]
        repeated = np.repeat(chosen, neighbour.shape[1], axis=0)
        closest = np.asarray(trimesh.triangles.closest_point(candidates, repeated))
        gaps: Floats = np.linalg.norm(closest - repeated, axis=1).reshape(neighbour.shape)
        return gaps.min(axis=1)

    # Too large where the closest triangle has no sample near. The farthest points are looked at
    # again more closely, until no other could be farther.
    rough = distance(points, NEAREST)
    order = np.argsort(-rough, kind="stable")
    farthest = 0.0
    for start in range(0, len(order), CLOSELY):
        if rough[order[start]] <= farthest:
            break
        again = order[start : start + CLOSELY]
        farthest = max(farthest, float(distance(points[again], CLOSE_NEAREST).max()))
    return farthest

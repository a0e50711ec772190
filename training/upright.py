"""Which axis of a foreign mesh points up: a guess from its shape, that says how sure it is.

Each of the six directions is weighed by what tells how a thing stands: whether it stays standing,
on how much of a base, whether it is round about the vertical, and whether it holds water. What the
file's format says comes on top, and what the other files of the same origin look like. Nothing
else is known of a file; a cube keeps all of its sides, and the answer says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, cKDTree

from renderer.meshes import surface_samples, turned_upright

Floats = NDArray[np.float64]
UpAxis = Literal["x", "y", "z", "-x", "-y", "-z"]
AXES: tuple[UpAxis, ...] = get_args(UpAxis)

# Of the score, in nats; the weights are round numbers.
UNSTABLE = -3.0  # tips over when touched
BASE = 1.0  # times the share of the outline that touches the table
ROUND = 4.0  # times the share of the surface that is where it was after a turn
WATER = 3.0  # times how much more water it holds than upside down, from -1 to 1
UNSURE = 0.5  # weight of the other files of the same origin

# What formats say of the axis that is up, likewise. glTF prescribes y; OBJ and PLY come from
# programs of either habit, STL mostly from those with z.
HABITS: dict[str, dict[UpAxis, float]] = {
    ".glb": {"y": 4.0},
    ".gltf": {"y": 4.0},
    ".obj": {"y": 1.5, "z": 1.5},
    ".ply": {"y": 1.0, "z": 1.5},
    ".stl": {"y": 0.5, "z": 2.0},
}

TIPPING = 5.0  # degrees that a thing can be tilted by before it falls, at least, to be stable
NEAR = 0.02  # of its size: as near counts as touching, and as being where it was
GRID = 40  # cells across, of the map of heights
SAMPLES = 60_000  # on the surface, for that map
SHALLOW = 0.02  # of the box's volume: so little water does not matter


@dataclass(frozen=True)
class UpGuess:
    """Which axis of the file is up."""

    axis: UpAxis
    sure: float  # probability


def guess_up(scores: Sequence[dict[UpAxis, float]], suffix: str) -> list[UpGuess]:
    """For files of one origin, which axis of each is up.

    Args:
        scores: of each file, by `shape_scores`.
        suffix: of the files.
    """
    habit = {axis: HABITS[suffix].get(axis, 0.0) for axis in AXES}
    together = {axis: sum(score[axis] for score in scores) for axis in AXES}
    guesses = []
    for score in scores:
        others = {axis: together[axis] - score[axis] for axis in AXES}
        total = {axis: score[axis] + habit[axis] + UNSURE * others[axis] for axis in AXES}
        best = max(AXES, key=lambda axis: total[axis])
        weight = sum(math.exp(total[axis] - total[best]) for axis in AXES)
        guesses.append(UpGuess(best, 1 / weight))
    return guesses


def shape_scores(mesh: trimesh.Trimesh) -> dict[UpAxis, float]:
    """How well a mesh stands with each of its axes up, nats."""
    points, _ = surface_samples(mesh, SAMPLES, seed=1)
    size = float(np.ptp(mesh.vertices[np.unique(mesh.faces)], axis=0).max())
    centre = _solid_centre(mesh)
    roundness: dict[str, float] = {}
    water: dict[str, float] = {}
    scores = {}
    for axis in AXES:
        standing = turned_upright(points, axis)
        name = axis[-1]
        if name not in roundness:
            roundness[name] = _roundness(standing, size)
        stands, base = _base(standing, turned_upright(centre[None], axis)[0], size)
        water[axis] = _water(standing)
        scores[axis] = ROUND * roundness[name] + BASE * base + (0.0 if stands else UNSTABLE)
    for axis in AXES:
        below = water[axis[-1] if axis.startswith("-") else f"-{axis}"]
        scores[axis] += WATER * (water[axis] - below) / (water[axis] + below + SHALLOW)
    return scores


def _solid_centre(mesh: trimesh.Trimesh) -> Floats:
    """The centre [3] of mass of the convex hull: a foreign mesh is seldom a closed solid."""
    try:
        return np.asarray(mesh.convex_hull.center_mass, dtype=np.float64)
    except Exception:  # whatever the hull trips over where all points are nearly in a plane
        return np.asarray(mesh.bounds.mean(axis=0), dtype=np.float64)


def _base(points: Floats, centre: Floats, size: float) -> tuple[bool, float]:
    """Whether the thing stays standing, and which share of its outline touches the table."""
    bottom = points[:, 2].min()
    touching = points[points[:, 2] < bottom + NEAR * size, :2]
    try:
        base, outline = ConvexHull(touching), ConvexHull(points[:, :2])
    except Exception:  # fewer than three points, or all in a line: Qhull says so in many ways
        return False, 0.0
    # Distances to the base's sides; those of a point inside are negative.
    inside = -(base.equations @ np.array([*centre[:2], 1.0])).max()
    tipping = math.degrees(math.atan2(inside, max(centre[2] - bottom, 1e-9)))
    return tipping >= TIPPING, float(base.volume / outline.volume)


def _roundness(points: Floats, size: float) -> float:
    """The share of points that are on the surface still when turned about the vertical.

    About the best of a few axes, as a handle moves the middle; by angles that no low order divides.
    """
    flat = points[:, :2]
    probes = points[:: max(1, len(points) // 800)]
    tree = cKDTree(points)
    best = 0.0
    for centre in (flat.mean(axis=0), (flat.min(axis=0) + flat.max(axis=0)) / 2, _middle(flat)):
        shares = []
        for turns in (1 / 2.618034, 1 / 9.4721):
            angle = 2 * math.pi * turns
            rotation = np.array(
                [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            )
            turned = probes.copy()
            turned[:, :2] = (probes[:, :2] - centre) @ rotation.T + centre
            distance, _ = tree.query(turned)
            shares.append(float((distance < NEAR * size).mean()))
        best = max(best, min(shares))
    return best


def _middle(flat: Floats) -> Floats:
    """The middle [2] of the largest disc in the outline of points [N, 2], holes filled."""
    low, pitch = flat.min(axis=0), np.ptp(flat, axis=0).max() / GRID
    cells = np.floor((flat - low) / pitch).astype(int) + 1
    raster = np.zeros(cells.max(axis=0) + 2, dtype=bool)
    raster[tuple(cells.T)] = True
    depth = ndimage.distance_transform_edt(ndimage.binary_fill_holes(raster))
    deepest = np.argwhere(depth >= depth.max() - 0.5).mean(axis=0)
    return low + (deepest - 0.5) * pitch


def _water(points: Floats) -> float:
    """How much water rain would leave in it, as a share of its bounding box."""
    low, high = points.min(axis=0), points.max(axis=0)
    pitch = (high - low)[:2].max() / GRID
    cells = np.floor((points[:, :2] - low[:2]) / pitch).astype(int) + 1
    shape = cells.max(axis=0) + 2
    ground = np.full(shape, -np.inf)
    np.maximum.at(ground, tuple(cells.T), points[:, 2] - low[2])
    covered = np.isfinite(ground)
    ground[~covered] = 0.0
    # Lowered from above until each cell is as high as its ground, or as its lowest way out.
    level = np.where(covered, ground.max(), 0.0)
    while True:
        lower = np.maximum(ground, ndimage.minimum_filter(level, size=3))
        lower = np.minimum(level, lower)
        if np.array_equal(lower, level):
            break
        level = lower
    box = np.prod(np.maximum(high - low, 1e-12))
    return float((level - ground).sum() * pitch**2 / box)

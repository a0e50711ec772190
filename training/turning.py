"""Which turns about the vertical cannot be seen of a coloured mesh: none, n-fold, any.

A turn cannot be seen if nearly every point of the surface lands on the surface, and on the colour
that it has. Both are tested on points spread over it: 99 of 100 must land within 2 % of the radius,
as `renderer.meshes.has_symmetry` demands of a SceneSpec, and within 0.12 in RGB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from renderer.meshes import bounding_radius
from training.surface import ColouredMesh

Floats = NDArray[np.float64]

SHAPE_TOLERANCE = 0.02  # of the radius
COLOUR_TOLERANCE = 0.12  # distance in RGB, of components in [0, 1]
QUANTILE = 0.99  # of the surface that has to be within both
HIGHEST = 36  # fold, that a SceneSpec takes

PROBES, SAMPLES = 1500, 30_000
NEAREST = 8  # samples near a probe whose triangles and colours are looked at
FACING = 0.5  # cosine between normals of surfaces that may be taken for each other

# Turns that no low order divides, so that facets and handles cannot hide between them.
GENERIC = (Fraction(1000, 2618), Fraction(1000, 4236), Fraction(1000, 9472))
DOUBT = (0.6, 1.8)  # of the tolerance: what is between is called doubtful


@dataclass(frozen=True)
class Turning:
    """What is known of the turns of an object."""

    order: int  # 1 none, n n-fold, 0 continuous, as in a SceneSpec
    centre: tuple[float, float]  # of the axis, in the mesh's x and y
    error: float  # of the worst turn that counts as not to be seen, in tolerances
    next_error: float  # of the turns of the next more symmetric answer, in tolerances
    because: str  # what of it is in doubt; empty if nothing
    symmetric_shape: bool  # whether the shape alone has a symmetry, whatever its colours

    @property
    def name(self) -> str:
        """As in the SceneSpec, and as people say it."""
        return {0: "continuous", 1: "none"}.get(self.order, f"{self.order}-fold")


def find_turning(item: ColouredMesh) -> Turning:
    """The symmetry about the vertical of a mesh that stands upright, z up.

    About the axis that suits it best of three: through the centre of its surface, of its bounding
    box, and through the file's origin.
    """
    centres = _centres(item)
    trials = [_Trial(item, centre) for centre in centres]
    trial = min(trials, key=lambda one: one.generic_shape())
    round_off = trial.worst(GENERIC)
    if round_off <= 1:
        return trial.answer(0, round_off, math.inf)
    rejected = {0: round_off}
    for order in range(HIGHEST, 1, -1):
        # The first turn is the farthest off for a thing with one handle, and a high order fails by
        # it at once; only what is left is turned by all the others.
        worst = trial.worst(Fraction(turn, order) for turn in range(1, order // 2 + 1))
        if worst <= 1:
            return trial.answer(order, worst, min(rejected.values()))
        if order <= 12:  # by a few degrees, everything lands near where it was
            rejected[order] = worst
    return trial.answer(1, 0.0, min(rejected.values()))


class _Trial:
    """Turns of one mesh about one axis, each tried once."""

    def __init__(self, item: ColouredMesh, centre: tuple[float, float]) -> None:
        self.centre = centre
        away = np.array([*centre, 0.0])
        moved = trimesh.Trimesh(item.mesh.vertices - away, item.mesh.faces, process=False)
        self._radius = bounding_radius(moved)
        points, normals, colours = item.samples(SAMPLES, seed=2)
        self._at, self._normals, self._colours = points - away, normals, colours
        self._tree = cKDTree(self._at)
        points, normals, colours = item.samples(PROBES, seed=1)
        self._probes = (points - away, normals, colours)
        self._known: dict[Fraction, tuple[float, float]] = {}

    def generic_shape(self) -> float:
        """How far turns of no particular angle take the shape off itself, in tolerances."""
        return max(self.errors(turn)[0] for turn in GENERIC)

    def worst(self, turns: Iterator[Fraction] | tuple[Fraction, ...]) -> float:
        """The worst of the turns, in tolerances; the first one that can be seen if any can."""
        worst = 0.0
        for turn in turns:
            worst = max(worst, *self.errors(turn))
            if worst > 1:
                break
        return worst

    def errors(self, turn: Fraction) -> tuple[float, float]:
        """How far a turn takes shape and colours off themselves, in tolerances."""
        if turn not in self._known:
            self._known[turn] = self._tried(2 * math.pi * float(turn))
        return self._known[turn]

    def _tried(self, angle: float) -> tuple[float, float]:
        points, normals, colours = self._probes
        cos, sin = math.cos(angle), math.sin(angle)
        rotation = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        turned, facing = points @ rotation, normals @ rotation
        _, near = self._tree.query(turned, k=NEAREST)
        # Off the plane of a sample, where that faces the same way: samples are not everywhere.
        gaps = turned[:, None] - self._at[near]  # [N, k, 3]
        off = np.abs((gaps * self._normals[near]).sum(axis=2))
        alike = np.abs((self._normals[near] * facing[:, None]).sum(axis=2)) > FACING
        distance = np.where(alike, off, np.linalg.norm(gaps, axis=2)).min(axis=1)
        difference = np.linalg.norm(self._colours[near] - colours[:, None], axis=2)
        difference = np.where(alike, difference, np.inf).min(axis=1)
        # What faces nothing of its kind is for the shape to judge.
        difference = np.where(np.isfinite(difference), difference, 0.0)
        shape = float(np.quantile(distance, QUANTILE)) / (SHAPE_TOLERANCE * self._radius)
        return shape, float(np.quantile(difference, QUANTILE)) / COLOUR_TOLERANCE

    def answer(self, order: int, error: float, next_error: float) -> Turning:
        """The symmetry of that order, with what makes it doubtful."""
        because = ""
        if order != 1 and error > DOUBT[0]:
            because = f"its turns are off by {error:.0%} of what is tolerated"
        elif next_error < DOUBT[1]:
            because = f"it is nearly more symmetric, off by {next_error:.1f} times the tolerance"
        return Turning(order, self.centre, error, next_error, because, self._symmetric_shape())

    def _symmetric_shape(self) -> bool:
        """Whether any of the turns that were tried leaves the shape as it is."""
        return any(shape <= 1 for turn, (shape, _) in self._known.items() if 8 * turn >= 1)


def _centres(item: ColouredMesh) -> list[tuple[float, float]]:
    mesh = item.mesh
    area = np.asarray(mesh.area_faces)
    surface = (np.asarray(mesh.triangles_center) * area[:, None]).sum(axis=0) / area.sum()
    used = np.asarray(mesh.vertices)[np.unique(mesh.faces)]
    box = (used.min(axis=0) + used.max(axis=0)) / 2
    return [(float(x), float(y)) for x, y in (surface[:2], box[:2], (0.0, 0.0))]

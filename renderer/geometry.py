"""What is needed to know of an object's shape besides how it looks: footprint, height, symmetry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import Tensor

from renderer.meshes import MeshError, footprint_circles, has_symmetry, load_mesh

__all__ = ["GeometryError", "ObjectGeometry", "mesh_geometry", "shape_geometry"]

GeometryError = MeshError


@dataclass(frozen=True)
class ObjectGeometry:
    """An object in its own frame: standing on z = 0, origin where the spec's position is."""

    footprint: Tensor  # [P, 3] (x, y, radius) m, discs that cover it seen from above
    lower: tuple[float, float, float]  # m, corner of its bounding box
    upper: tuple[float, float, float]  # m, the opposite corner
    mesh: trimesh.Trimesh | None  # None for a primitive shape
    symmetries: tuple[int, ...] | None  # orders that a primitive has; None: look at the mesh

    @property
    def height(self) -> float:
        """Metres above the table."""
        return self.upper[2]

    @property
    def radius(self) -> float:
        """Farthest reach from the origin along the table, m."""
        return float((self.footprint[:, :2].norm(dim=1) + self.footprint[:, 2]).max())

    def has_symmetry(self, order: int) -> bool:
        """Whether a turn by 1/order (0: by any angle) about z leaves the shape as it is."""
        if order == 1:
            return True
        if self.symmetries is not None:
            return any(own == 0 or (order > 0 and own % order == 0) for own in self.symmetries)
        assert self.mesh is not None
        return has_symmetry(self.mesh, order or None)


def shape_geometry(shape: str, size: tuple[float, ...]) -> ObjectGeometry:
    """A box, sphere or cylinder standing on the table; `size` in metres as MuJoCo has it."""
    if shape == "box":
        x, y, z = size
        # One disc would claim the corners' circle all along the sides: four fit better.
        half = torch.tensor([[sx * x / 2, sy * y / 2] for sx in (-1, 1) for sy in (-1, 1)])
        radius = torch.full((4, 1), math.hypot(x, y) / 2)
        footprint, symmetries = torch.cat([half, radius], 1), (4 if x == y else 2,)
    elif shape == "sphere":
        x = y = z = size[0]
        footprint, symmetries = torch.tensor([[0.0, 0.0, size[0]]]), (0,)
    elif shape == "cylinder":
        (x, z), y = size, size[0]
        footprint, symmetries = torch.tensor([[0.0, 0.0, size[0]]]), (0,)
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return ObjectGeometry(footprint, (-x, -y, 0.0), (x, y, 2 * z), None, symmetries)


@lru_cache(maxsize=64)
def mesh_geometry(path: Path, *, scale: float, up_axis: str) -> ObjectGeometry:
    """A mesh file scaled to metres, turned upright and set on the table.

    Raises:
        GeometryError: the file cannot be used, and why.
    """
    mesh = load_mesh(path, scale=scale, up_axis=up_axis)
    footprint = torch.from_numpy(np.asarray(footprint_circles(mesh), dtype=np.float32))
    lower, upper = (tuple(float(v) for v in corner) for corner in mesh.bounds)
    return ObjectGeometry(footprint, lower, upper, mesh, None)  # type: ignore[arg-type]

"""The points of the table that the cells of the feature map look at."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference.encoder import STRIDE
from renderer.camera import unproject_to_table
from renderer.spec import SceneSpec


def table_anchors(spec: SceneSpec, height: int, width: int) -> Tensor:
    """The point of the table that each cell of the feature map looks at: `[G, 2]` m, view frame.

    Cells that look past the places where objects can stand take the nearest such place.
    """
    rows, columns = height // STRIDE, width // STRIDE
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    pixels = (torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * STRIDE
    points = unproject_to_table(spec.camera, pixels, height, width)
    points = points - torch.tensor(spec.camera.target[:2])
    reach = math.hypot(*spec.placement.extent) + math.hypot(*spec.camera.target[:2])
    return points.clamp(-reach, reach)

"""Where the camera is, what it sees of a point, and which point of the table a pixel shows.

The camera frame follows OpenGL and MuJoCo: x to the right of the picture, y up, z backwards.
Pixels are measured from the picture's top left corner, x to the right and y down.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from renderer.spec import Camera


def rotation_z(angle: Tensor) -> Tensor:
    """Rotations about +z by `angle` (rad, any shape `[...]`): `[..., 3, 3]`."""
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [cos, -sin, zero, sin, cos, zero, zero, zero, one]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def turn(vector: Tensor, angle: Tensor) -> Tensor:
    """Turns vectors `[..., 2]` in the table plane by `angle` `[...]` rad about +z."""
    cos, sin = angle.cos(), angle.sin()
    x, y = vector[..., 0], vector[..., 1]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def camera_pose(camera: Camera, azimuth: Tensor) -> tuple[Tensor, Tensor]:
    """Position `[B, 3]` m and axes `[B, 3, 3]` (columns right, up, backward) of the camera.

    Args:
        camera: the spec's camera.
        azimuth: `[B]` rad; 0 stands at -y looking to +y, positive turns it about +z.
    """
    elevation = math.radians(camera.elevation_deg)
    cos, sin = math.cos(elevation), math.sin(elevation)
    offset = torch.tensor([0.0, -cos, sin], device=azimuth.device, dtype=azimuth.dtype)
    # Columns: right, up, backward, for azimuth 0.
    axes = torch.tensor(
        [[1.0, 0.0, 0.0], [0.0, sin, -cos], [0.0, cos, sin]],
        device=azimuth.device,
        dtype=azimuth.dtype,
    )
    if camera.roll_deg:
        axes = axes @ rotation_z(axes.new_tensor(math.radians(camera.roll_deg)))
    rotation = rotation_z(azimuth)
    target = torch.tensor(camera.target, device=azimuth.device, dtype=azimuth.dtype)
    return target + camera.distance * (rotation @ offset), rotation @ axes


def focal_length(camera: Camera, height: int) -> float:
    """The focal length, px of pictures `height` px high."""
    return 0.5 * height / math.tan(math.radians(camera.fovy_deg) / 2)


def principal_point(camera: Camera, height: int, width: int) -> tuple[float, float]:
    """The pixel (x, y) at which the camera's axis meets the picture."""
    right, down = camera.principal
    return width / 2 + right * height, height / 2 + down * height


def project(camera: Camera, azimuth: Tensor, points: Tensor, height: int, width: int) -> Tensor:
    """Pixels `[B, N, 2]` at which points `[B, N, 3]` (m, table frame) are seen."""
    position, axes = camera_pose(camera, azimuth)
    local = (points - position[:, None]) @ axes
    focal, (middle, centre) = focal_length(camera, height), principal_point(camera, height, width)
    x = middle + focal * local[..., 0] / -local[..., 2]
    y = centre - focal * local[..., 1] / -local[..., 2]
    return torch.stack([x, y], dim=-1)


def unproject_to_table(camera: Camera, pixels: Tensor, height: int, width: int) -> Tensor:
    """The points of the table plane seen at `pixels` `[N, 2]`, for azimuth 0: `[N, 2]` m.

    Rays at or above the horizon have no such point; theirs is the horizon's, very far away.
    """
    position, axes = camera_pose(camera, torch.zeros(1, dtype=pixels.dtype))
    focal, (middle, centre) = focal_length(camera, height), principal_point(camera, height, width)
    local = torch.stack(
        [
            (pixels[:, 0] - middle) / focal,
            (centre - pixels[:, 1]) / focal,
            -torch.ones_like(pixels[:, 0]),
        ],
        dim=-1,
    )
    direction = local @ axes[0].T
    steps = position[0, 2] / (-direction[:, 2]).clamp_min(1e-3)
    return position[0, :2] + steps[:, None] * direction[:, :2]


def to_view(camera: Camera, position: Tensor, azimuth: Tensor) -> Tensor:
    """Table positions `[..., 2]` m as the camera at `azimuth` `[...]` sees them.

    The view frame is the table frame turned about the camera's target until the camera stands at
    azimuth 0: what looks the same has the same coordinates in it, from wherever it is seen.
    """
    target = torch.tensor(camera.target[:2], device=position.device, dtype=position.dtype)
    return turn(position - target, -azimuth)


def from_view(camera: Camera, position: Tensor, azimuth: Tensor) -> Tensor:
    """The inverse of `to_view`."""
    target = torch.tensor(camera.target[:2], device=position.device, dtype=position.dtype)
    return target + turn(position, azimuth)

"""Where objects can stand without touching: footprints as discs, overlap, and the room there is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Discs that only pad a class with a small footprint up to the number of discs of a large one.
# Their negative radius never reaches another disc.
PADDING_RADIUS = -1e3


def stack_footprints(footprints: list[Tensor]) -> Tensor:
    """Pads the discs `[P, 3]` (x, y, radius; m) of each class to one tensor `[C, P_max, 3]`."""
    discs = max(len(footprint) for footprint in footprints)
    stacked = torch.zeros(len(footprints), discs, 3)
    stacked[..., 2] = PADDING_RADIUS
    for row, footprint in zip(stacked, footprints, strict=True):
        row[: len(footprint)] = footprint
    return stacked


def overlaps(
    footprints: Tensor, presence: Tensor, identity: Tensor, position: Tensor, yaw: Tensor
) -> Tensor:
    """Whether any two present objects of a scene stand in each other: `[B]` bool.

    Args:
        footprints: `[C, P, 3]` m, the discs of each class in its own frame.
        presence: `[B, K]` bool.
        identity: `[B, K]` int64.
        position: `[B, K, 2]` m.
        yaw: `[B, K]` rad.
    """
    discs = footprints[identity]  # [B, K, P, 3]
    cos, sin = yaw.cos()[..., None], yaw.sin()[..., None]
    x = position[..., :1] + cos * discs[..., 0] - sin * discs[..., 1]  # [B, K, P]
    y = position[..., 1:] + sin * discs[..., 0] + cos * discs[..., 1]
    radius = discs[..., 2]
    collision = torch.zeros(len(identity), dtype=torch.bool, device=identity.device)
    rows = torch.arange(len(identity), device=identity.device)  # no collision found in these yet
    for j in range(1, identity.shape[1]):
        distance = torch.hypot(
            x[rows, :j, :, None] - x[rows, j, None, None, :],
            y[rows, :j, :, None] - y[rows, j, None, None, :],
        )  # [R, j, P, P]
        touching = distance < radius[rows, :j, :, None] + radius[rows, j, None, None, :]
        both = presence[rows, :j] & presence[rows, j, None]
        hit = (touching.flatten(2).any(2) & both).any(1)
        collision[rows[hit]] = True
        rows = rows[~hit]
    return collision


def draw_identities(
    count: int, scenes: int, classes: int, repeats: bool, generator: torch.Generator | None
) -> Tensor:
    """Classes of `count` objects a scene, `[scenes, count]`; without repeats, all different."""
    if repeats:
        return torch.randint(classes, (scenes, count), generator=generator)
    return torch.rand(scenes, classes, generator=generator).argsort(1)[:, :count]


def draw_poses(
    count: int, scenes: int, extent: tuple[float, float], generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Positions `[scenes, count, 2]` m, uniform in +-`extent`, and yaws `[scenes, count]` rad."""
    position = (torch.rand(scenes, count, 2, generator=generator) * 2 - 1) * torch.tensor(extent)
    yaw = (torch.rand(scenes, count, generator=generator) * 2 - 1) * math.pi
    return position, yaw


def acceptance(
    footprints: Tensor,
    extent: tuple[float, float],
    count: int,
    repeats: bool,
    *,
    samples: int = 100_000,
) -> float:
    """Probability that `count` objects thrown at random do not overlap, by Monte Carlo.

    It is the normalising constant of the prior over scenes without overlap. The seed is fixed,
    so a spec has one value; the standard error is sqrt(p (1 - p) / samples).
    """
    if count < 2:
        return 1.0
    generator = torch.Generator().manual_seed(0)
    identity = draw_identities(count, samples, len(footprints), repeats, generator)
    position, yaw = draw_poses(count, samples, extent, generator)
    presence = torch.ones_like(identity, dtype=torch.bool)
    return 1.0 - float(overlaps(footprints, presence, identity, position, yaw).float().mean())

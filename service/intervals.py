"""The intervals that hold the truth so often, as numbers, for all pictures of a batch at once.

They are looked for on fine grids, by some dozens of small operations: for one picture as for
sixteen. So the engine does it, and whoever writes an answer finds numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inference.errors import LEVELS, ErrorLaw
from inference.estimate import Estimate
from renderer.spec import SceneSpec

Within = dict[str, float]  # half-widths by level


@dataclass(frozen=True)
class Intervals:
    """How far the truth may be from an estimate, for each of `LEVELS`."""

    position: list[Within]  # of each slot, Mahalanobis distance
    yaw: list[Within]  # of each slot, rad
    azimuth: Within  # rad


def intervals(spec: SceneSpec, estimate: Estimate) -> list[Intervals]:
    """The intervals of each estimate of a batch.

    Args:
        spec: the world.
        estimate: of B pictures.
    """
    identity = estimate.scene.identity
    orders = torch.tensor(spec.symmetry_orders)[identity]
    # The camera's angle is one more, which repeats after a full turn.
    turning = torch.cat([orders, torch.ones_like(orders[:, :1])], dim=1)
    laws = torch.cat([estimate.yaw_law, estimate.azimuth_law[:, None]], dim=1)
    turns = ErrorLaw.of(laws).turn(LEVELS, turning).tolist()
    law = ErrorLaw.of(estimate.position_law)
    places = torch.stack([law.ellipse(level) for level in LEVELS], dim=-1).tolist()
    return [
        Intervals(
            [_by_level(row) for row in place], [_by_level(row) for row in yaw], _by_level(end)
        )
        for place, (*yaw, end) in zip(places, turns, strict=True)
    ]


def _by_level(values: Sequence[float]) -> Within:
    return {str(level): value for level, value in zip(LEVELS, values, strict=True)}

"""The intervals that hold the truth so often, as numbers, for all pictures of a batch at once.

An estimate has them as tensors. The engine writes them out, and whoever writes an answer finds
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inference.calibrate import with_intervals
from inference.errors import LEVELS
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
    if not estimate.position_within.shape[-1]:  # of a model that is not calibrated
        estimate = with_intervals(estimate, torch.tensor(spec.symmetry_orders))
    parts = (estimate.position_within, estimate.yaw_within, estimate.azimuth_within)
    return [
        Intervals(
            [_by_level(row) for row in place], [_by_level(row) for row in turn], _by_level(end)
        )
        for place, turn, end in zip(*(part.tolist() for part in parts), strict=True)
    ]


def _by_level(values: Sequence[float]) -> Within:
    return {str(level): value for level, value in zip(LEVELS, values, strict=True)}

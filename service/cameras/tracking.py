"""Ids of objects that last from one frame of a camera to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from service.schemas import DetectedObject

# An object that moved by more than this between two frames counts as another one. Objects of one
# class cannot stand much closer, and a hand that carries one away takes it farther.
GATE = 0.15  # m

# Costs more than all distances together: pairs that may not be matched are the last resort, and
# are then taken apart again.
FORBIDDEN = 1e3


def keep_ids(
    before: Sequence[DetectedObject], after: Sequence[DetectedObject], next_id: int
) -> tuple[list[DetectedObject], int]:
    """The objects of a frame under the ids that they had in the frame before.

    Objects of one class are matched so that as many as can be keep their ids, and the distances
    sum to the least (Kuhn's assignment problem).

    Args:
        before: objects of the previous frame.
        after: objects of this one.
        next_id: the least id that was never given.

    Returns:
        `after` with its ids, and the next `next_id`.
    """
    ids: dict[int, int] = {}
    if before and after:
        places, now = _places(before), _places(after)
        distance = np.linalg.norm(places[:, None] - now[None], axis=-1)
        same = np.array([[a.class_id == b.class_id for b in after] for a in before])
        allowed = same & (distance <= GATE)
        rows, columns = linear_sum_assignment(np.where(allowed, distance, FORBIDDEN))
        ids = {int(j): before[i].id for i, j in zip(rows, columns, strict=True) if allowed[i, j]}
    kept = []
    for j, item in enumerate(after):
        if j not in ids:
            ids[j], next_id = next_id, next_id + 1
        kept.append(item.model_copy(update={"id": ids[j]}))
    return kept, next_id


def _places(objects: Sequence[DetectedObject]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """`[N, 2]` m."""
    positions = [item.pose.position for item in objects]
    return np.array([[place.x, place.y] for place in positions], dtype=np.float64)

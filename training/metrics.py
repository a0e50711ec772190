"""How far inferred scenes are from true ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from inference.distributions import wrap
from renderer.scene import Scene
from renderer.spec import SceneSpec

FOUND_WITHIN = 0.05  # m


@dataclass(frozen=True)
class Matches:
    """Pairs of inferred and true objects, M of them over all scenes."""

    scene: Tensor  # [M] int64, index of the scene
    inferred: Tensor  # [M] int64, slot
    true: Tensor  # [M] int64, slot
    distance: Tensor  # [M] m


def match(inferred: Scene, true: Scene) -> Matches:
    """Assigns inferred to true objects of each scene so that the distances sum to the least."""
    rows: list[tuple[int, int, int, float]] = []
    distances = torch.cdist(inferred.position, true.position).numpy()
    there, truth = inferred.presence.numpy(), true.presence.numpy()
    for b in range(len(true)):
        i, j = np.flatnonzero(there[b]), np.flatnonzero(truth[b])
        cost = distances[b][np.ix_(i, j)]
        rows += [
            (b, int(i[r]), int(j[c]), float(cost[r, c]))
            for r, c in zip(*linear_sum_assignment(cost), strict=True)
        ]
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    scene, first, second = (torch.tensor(c, dtype=torch.int64) for c in columns[:3])
    return Matches(scene, first, second, torch.tensor(columns[3], dtype=torch.float32))


def yaw_errors(spec: SceneSpec, identity: Tensor, inferred: Tensor, true: Tensor) -> Tensor:
    """Absolute yaw errors `[M]` rad modulo each class's symmetry; nan where no turn shows."""
    order = torch.tensor(spec.symmetry_orders)[identity]
    error = wrap(order * (inferred - true)).abs() / order.clamp_min(1)
    return torch.where(order == 0, math.nan, error)


def summary(errors: Tensor) -> dict[str, float | None]:
    """Median, mean and 90th percentile, ignoring nan; None when nothing is left."""
    kept = errors[~errors.isnan()]
    if not len(kept):
        return {"median": None, "mean": None, "p90": None}
    return {
        "median": float(kept.quantile(0.5)),
        "mean": float(kept.mean()),
        "p90": float(kept.quantile(0.9)),
    }


def accuracy(spec: SceneSpec, inferred: Scene, true: Scene) -> dict[str, object]:
    """The figures of merit of a point estimate.

    `recall` and `precision` count an object as found when it is matched to a true one of its
    class within 5 cm. Errors are over matched objects of the right class within 5 cm.
    """
    pairs = match(inferred, true)
    guess = inferred.identity[pairs.scene, pairs.inferred]
    truth = true.identity[pairs.scene, pairs.true]
    near = pairs.distance <= FOUND_WITHIN
    right = guess == truth
    found = near & right
    yaw = yaw_errors(
        spec,
        truth,
        inferred.yaw[pairs.scene, pairs.inferred],
        true.yaw[pairs.scene, pairs.true],
    )[found]
    azimuth = wrap(inferred.azimuth - true.azimuth).abs()
    result: dict[str, object] = {
        "count_accuracy": float((inferred.count == true.count).float().mean()),
        "identity_accuracy": _ratio(int((right & near).sum()), int(near.sum())),
        "recall": _ratio(int(found.sum()), int(true.presence.sum())),
        "precision": _ratio(int(found.sum()), int(inferred.presence.sum())),
        "position_error_m": summary(pairs.distance[found]),
        "yaw_error_rad": summary(yaw),
        "azimuth_error_rad": summary(azimuth),
    }
    classes = {}
    for index, name in enumerate(spec.class_names):
        of_class = truth[found] == index
        classes[name] = {
            "recall": _ratio(
                int(of_class.sum()), int((true.identity[true.presence] == index).sum())
            ),
            "position_error_m": summary(pairs.distance[found][of_class]),
            "yaw_error_rad": summary(yaw[of_class]),
        }
    result["classes"] = classes
    return result


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None

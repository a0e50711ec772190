"""In which unit a foreign mesh is: a guess from its size, that says how sure it is.

Bayes' rule with two plain assumptions: what stands on a table is about a hand long, give or take a
factor of two; and each format is mostly written in some units. Files that lie in one folder share
one unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Unit = Literal["mm", "cm", "inch", "m"]
METRES: dict[Unit, float] = {"mm": 0.001, "cm": 0.01, "inch": 0.0254, "m": 1.0}
UNITS: tuple[Unit, ...] = get_args(Unit)

TYPICAL = 0.14  # m, the longest side of what stands on a table,
SPREAD = 0.8  # and the standard deviation of its logarithm
SMALLEST, LARGEST = 0.01, 0.6  # m, beyond which an object does not stand on a table with others
NO_UNIT = 0.03  # how often a file is in none of the units, as with drawings for games
USUAL = (0.03, 0.4)  # m, beyond which one asks whether that is meant

# How often a format is in a unit. glTF is in metres by its specification, which not all keep to.
_METRIC = {"m": 0.9, "cm": 0.04, "mm": 0.04, "inch": 0.02}
PRIORS: dict[str, dict[Unit, float]] = {
    ".glb": _METRIC,  # type: ignore[dict-item]
    ".gltf": _METRIC,  # type: ignore[dict-item]
    ".stl": {"mm": 0.8, "m": 0.1, "cm": 0.05, "inch": 0.05},
    ".obj": {"m": 0.45, "mm": 0.3, "cm": 0.2, "inch": 0.05},
    ".ply": {"m": 0.5, "mm": 0.4, "cm": 0.08, "inch": 0.02},
}


@dataclass(frozen=True)
class UnitGuess:
    """How long a file's unit of length is."""

    unit: Unit | None  # None: none of them makes sense, and `metres` is what would
    metres: float
    sure: float  # probability


def guess_unit(longest: Sequence[float], suffix: str) -> UnitGuess:
    """The unit that files of one origin share.

    Args:
        longest: the longest side of each file's bounding box, in the file's unit.
        suffix: of the files, such as `.stl`.

    Returns:
        The likeliest unit in which all of them could stand on a table. If none is likely, a scale
        at which the files are of typical size on (geometric) average.
    """
    weights: dict[Unit | None, float] = {
        unit: share * _likelihood(longest, METRES[unit])
        for unit, share in PRIORS[suffix].items()
        if all(SMALLEST <= METRES[unit] * side <= LARGEST for side in longest)
    }
    weights[None] = NO_UNIT
    best = max(weights, key=lambda unit: weights[unit])
    sure = weights[best] / sum(weights.values())
    if best is None:
        return UnitGuess(None, TYPICAL / _mean(longest), sure)
    return UnitGuess(best, METRES[best], sure)


def _likelihood(longest: Sequence[float], metres: float) -> float:
    """Of the mean size of the files, 1 at most: what lies in one folder is of one kind."""
    return math.exp(-0.5 * (math.log(metres * _mean(longest) / TYPICAL) / SPREAD) ** 2)


def _mean(sizes: Sequence[float]) -> float:
    """Their geometric mean."""
    return math.exp(sum(math.log(size) for size in sizes) / len(sizes))

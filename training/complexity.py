"""How complex a drawing is, by the drawing alone: how much line it has, and how it branches.

The lines are found by thinning (Zhang & Suen, 1984), on many drawings at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHUNK = 250  # drawings thinned at once, so that they stay in the processor's cache

Bools = NDArray[np.bool_]

# All that a pixel can have around it: bit i is the i-th neighbour, clockwise from above.
_BITS = (np.arange(256)[:, None] >> np.arange(8)) & 1 == 1
_NEIGHBOURS = _BITS.sum(1)
# How often one comes from paper to ink on the way around.
_CROSSINGS = (~_BITS & np.roll(_BITS, -1, axis=1)).sum(1)
_NORTH, _EAST, _SOUTH, _WEST = (_BITS[:, i] for i in (0, 2, 4, 6))
_OUTER = (_NEIGHBOURS >= 2) & (_NEIGHBOURS <= 6) & (_CROSSINGS == 1)
_PASSES = (
    _OUTER & ~(_NORTH & _EAST & _SOUTH) & ~(_EAST & _SOUTH & _WEST),
    _OUTER & ~(_NORTH & _EAST & _WEST) & ~(_NORTH & _SOUTH & _WEST),
)
_NODE = (_CROSSINGS == 1) | (_CROSSINGS >= 3)


@dataclass(frozen=True)
class Complexity:
    """Measures of n drawings."""

    length: NDArray[np.int64]  # [n] px of the thinned lines
    nodes: NDArray[np.int64]  # [n] where lines end, and where more than two meet


def measure_complexity(drawings: Bools) -> Complexity:
    """The complexity of drawings `[n, rows, columns]`, true where there is ink."""
    lines = [thin(drawings[i : i + CHUNK]) for i in range(0, len(drawings), CHUNK)]
    return Complexity(
        np.concatenate([part.sum((1, 2)) for part in lines]),
        np.concatenate([(part & _NODE[_around(part)]).sum((1, 2)) for part in lines]),
    )


def thin(drawings: Bools) -> Bools:
    """Lines one pixel wide that are connected as the ink is: `[n, rows, columns]`."""
    lines = drawings.copy()
    thick = np.arange(len(lines))  # those that still lose ink
    while len(thick):
        ink = lines[thick]
        before = ink.sum((1, 2))
        for removed in _PASSES:
            ink &= ~removed[_around(ink)]
        lines[thick] = ink
        thick = thick[ink.sum((1, 2)) < before]
    return lines


def _around(ink: Bools) -> NDArray[np.uint8]:
    """What each pixel has around it, as a number: `[n, rows, columns]`."""
    rows, columns = ink.shape[1:]
    padded = np.pad(ink, ((0, 0), (1, 1), (1, 1))).view(np.uint8)
    found = np.zeros(ink.shape, dtype=np.uint8)
    places = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))
    for bit, (y, x) in enumerate(places):
        found |= padded[:, y : y + rows, x : x + columns] << np.uint8(bit)
    return found

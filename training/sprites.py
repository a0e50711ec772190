"""Sprites: red circles, green squares and blue diamonds that add up (appendix G, figure 14a)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.digits import CANVAS, Bytes

RADIUS = (6.0, 8.0)  # px, from the middle of a sprite to the end of its width
# Grey levels of a sprite: two of one colour add up to white where they overlap, and not beyond.
LEVEL = 127
FINE = 4  # samples a pixel along each axis, so that edges are smooth


def sprites(
    counts: Sequence[int], n: int, random: np.random.Generator
) -> tuple[Bytes, NDArray[np.int64]]:
    """Images of sprites of random kind, size and place; they may lie upon each other.

    Args:
        counts: how many an image shows, each as likely.
        n: images.
        random: numbers.

    Returns:
        Images `[n, 3, 50, 50]` and how many sprites each shows, `[n]`.
    """
    if max(counts) * LEVEL > 255:
        raise ValueError(f"more than {255 // LEVEL} sprites would saturate: ask for fewer")
    count = random.choice(np.asarray(counts, dtype=np.int64), size=n)
    images = np.zeros((n, 3, CANVAS, CANVAS), dtype=np.uint8)
    for i in range(n):
        for _ in range(count[i]):
            radius = random.uniform(*RADIUS)
            x, y = random.uniform(radius, CANVAS - radius, size=2)
            kind = int(random.integers(3))
            _add(images[i, kind], kind, x, y, radius)
    return images, count


def _add(plane: Bytes, kind: int, x: float, y: float, radius: float) -> None:
    """Adds a shape to a plane `[50, 50]`: of each pixel, the share that it covers."""
    left, top = int(x - radius), int(y - radius)
    box = plane[top : int(y + radius) + 1, left : int(x + radius) + 1]
    height, width = box.shape
    across = np.abs(left + (np.arange(width * FINE) + 0.5) / FINE - x)
    down = np.abs(top + (np.arange(height * FINE) + 0.5) / FINE - y)[:, None]
    match kind:
        case 0:  # circle
            distance = np.hypot(across, down)
        case 1:  # square
            distance = np.maximum(across, down)
        case _:  # diamond
            distance = across + down
    covered = (distance <= radius).reshape(height, FINE, width, FINE).mean((1, 3))
    box += np.rint(LEVEL * covered).astype(np.uint8)

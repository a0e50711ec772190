"""What a SceneSpec's camera is of a calibration: field of view, shape, and where the axis is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

SQUARE = 0.01  # by which focal lengths along x and y may differ, as a share


def from_matrix(matrix: Any, image_size: Any) -> dict[str, Any]:
    """The keys `fovy_deg`, `aspect` and `principal` of a camera, of its matrix K.

    Args:
        matrix: 3 x 3, px: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], of pictures without distortion.
        image_size: their width and height, px.

    Raises:
        ValueError: it is no such matrix, or of a camera that cannot be drawn; with the mend.
    """
    try:
        k = np.asarray(matrix, dtype=np.float64).reshape(3, 3)
        width, height = (float(side) for side in image_size)
    except (TypeError, ValueError):
        raise ValueError("K: must be 3 x 3 numbers, and image_size [width, height] in px") from None
    fx, fy, cx, cy = k[0, 0], k[1, 1], k[0, 2], k[1, 2]
    if not (np.isfinite(k).all() and min(fx, fy, width, height) > 0):
        raise ValueError("K: must be finite, with focal lengths and image_size above 0")
    if not np.allclose(k[2], (0.0, 0.0, 1.0)) or abs(k[1, 0]) > 1e-9 or abs(k[0, 1]) > 1e-3 * fx:
        raise ValueError(
            "K: must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]; give the K that undistorting to "
            "pixels without skew leaves (cv2.getOptimalNewCameraMatrix)"
        )
    if abs(fx / fy - 1) > SQUARE:
        raise ValueError(
            f"K: pixels are not square (fx {fx:.5g}, fy {fy:.5g}); scale the pictures by "
            f"fy / fx = {fy / fx:.4f} in width, and K's first row with them"
        )
    if not (0 < cx < width and 0 < cy < height):
        raise ValueError(
            f"K: its principal point ({cx:.5g}, {cy:.5g}) is beside pictures of {width:g} x "
            f"{height:g} px; image_size is [width, height] of the pictures that K is of"
        )
    focal = math.sqrt(fx * fy)
    return {
        "fovy_deg": math.degrees(2 * math.atan(height / (2 * focal))),
        "aspect": width / height,
        "principal": [(cx - width / 2) / height, (cy - height / 2) / height],
    }

"""A user's calibrated camera, from the file that the calibration wrote, as a SceneSpec has it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from renderer.intrinsics import from_matrix

Floats = NDArray[np.float64]

KEYS = (
    "K: 3 x 3 (or camera_matrix, as ROS and OpenCV write it), image_size: [width, height] (or "
    "image_width and image_height), and if known table_in_camera: 4 x 4"
)
DISTORTION = ("distortion", "distortion_coefficients", "dist", "D")
STRAIGHT = 1e-6  # distortion coefficients up to here are none


def read_camera(path: Path) -> dict[str, Any]:
    """The keys of a SceneSpec's camera that a calibration file (YAML or JSON) says.

    Those of its lens always. If the file has `table_in_camera`, also where it stands: that matrix
    takes points of the table frame, m, to the camera's optical frame (x right, y down, z forward),
    as `cv2.solvePnP` gives it.

    Raises:
        ValueError: what is wrong with the file, and the mend.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML or JSON ({error})") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds no mapping; it needs {KEYS}")
    for key in DISTORTION:
        if key in data and np.abs(_numbers(path, key, data[key])).max(initial=0.0) > STRAIGHT:
            raise ValueError(
                f"{path}: {key}: the lens distorts, which the renderers cannot draw; undistort the "
                "photos first (cv2.undistort), also those that are sent to the server, and give "
                "the K of what that leaves, without distortion"
            )
    matrix = data.get("K", data.get("camera_matrix"))
    size = data.get("image_size", [data.get("image_width"), data.get("image_height")])
    if matrix is None or None in size:
        raise ValueError(f"{path}: lacks K or image_size; it needs {KEYS}")
    try:
        keys = from_matrix(_numbers(path, "K", matrix).tolist(), size)
        if "table_in_camera" in data:
            pose = _numbers(path, "table_in_camera", data["table_in_camera"])
            keys |= pose_keys(pose.reshape(4, 4) if pose.size == 16 else pose)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return keys


def pose_keys(table_in_camera: Floats) -> dict[str, Any]:
    """The keys `target`, `distance`, `elevation_deg`, `azimuth_deg` and `roll_deg` of a camera.

    Its target is where its axis meets the table.

    Args:
        table_in_camera: [4, 4], from the table frame to the optical frame, m.

    Raises:
        ValueError: it is no pose, or of a camera that does not look down on the table.
    """
    pose = np.asarray(table_in_camera, dtype=np.float64)
    if pose.shape != (4, 4) or not np.allclose(pose[3], (0.0, 0.0, 0.0, 1.0)):
        raise ValueError("table_in_camera: must be 4 x 4, with [0, 0, 0, 1] in its last row")
    rotation = pose[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise ValueError(
            "table_in_camera: its 3 x 3 is no rotation; give a right-handed pose, with the "
            "translation in metres in the last column"
        )
    right, _, forward = rotation  # the optical frame's axes in the table frame
    position = -rotation.T @ pose[:3, 3]
    if position[2] <= 0 or forward[2] >= -math.sin(math.radians(1.0)):
        raise ValueError(
            "table_in_camera: the camera would not look down on the table (z is up, 0 on its top); "
            "if the matrix is the camera in the table, give its inverse"
        )
    if forward[2] <= -math.sin(math.radians(89.9)):
        raise ValueError(
            "table_in_camera: the camera looks straight down, where its azimuth has no meaning; "
            "tilt it by a degree"
        )
    elevation = math.asin(-forward[2])
    azimuth = math.atan2(-forward[0], forward[1])
    distance = position[2] / math.sin(elevation)
    target = position + distance * forward
    level = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
    roll = math.atan2(right @ np.cross(level, forward), right @ level)
    degrees = math.degrees(azimuth)
    return {
        "target": [float(target[0]), float(target[1]), 0.0],
        "distance": float(distance),
        "elevation_deg": math.degrees(elevation),
        "azimuth_deg": [degrees, degrees],
        "roll_deg": math.degrees(roll),
    }


def _numbers(path: Path, key: str, value: Any) -> Floats:
    """The numbers of a list, or of a matrix as OpenCV and ROS write it (`data:`)."""
    try:
        return np.asarray(value["data"] if isinstance(value, dict) else value, dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: {key}: must be a list of numbers") from None

"""The answer as result rows of the BOP benchmark for 6D object pose estimation.

One row an object: `scene_id,im_id,obj_id,score,R,t,time`. R (row-major) and t (millimetres) bring
a point of the model to the camera, whose axes are OpenCV's: x right, y down, z forward. The models
are those of `GET /meshes/{class}` with z up, in millimetres; `obj_id` counts the classes of
`GET /model` from 1. The format is that of bop_toolkit's `save_bop_results`, version bop19.
"""

from __future__ import annotations

import csv
import io

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from renderer.spec import SceneSpec
from service.schemas import InferResponse, Pose

COLUMNS = ("scene_id", "im_id", "obj_id", "score", "R", "t", "time")


def bop_csv(answer: InferResponse, spec: SceneSpec, *, scene_id: int = 0, im_id: int = 0) -> str:
    """The rows of one picture, under the header.

    Args:
        answer: to the picture.
        spec: of the model that answered; the order of its classes numbers them.
        scene_id: of the picture's scene in the data set.
        im_id: of the picture in its scene.
    """
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    camera, origin = _matrices(answer.camera.pose)
    timing = answer.timing_ms
    seconds = (timing.decode + timing.infer + timing.refine + timing.render) / 1e3
    for item in answer.objects:
        rotation, position = _matrices(item.pose)
        rows.writerow(
            (
                scene_id,
                im_id,
                1 + spec.class_names.index(item.class_id),
                _number(item.score),
                _numbers(camera.T @ rotation),
                _numbers(1e3 * (camera.T @ (position - origin))),
                _number(seconds),
            )
        )
    return file.getvalue()


def _matrices(pose: Pose) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation `[3, 3]` and position `[3]` m of a pose in the table frame."""
    turn, place = pose.orientation, pose.position
    rotation = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    return np.asarray(rotation, dtype=np.float64), np.array([place.x, place.y, place.z])


def _number(value: float) -> str:
    return f"{value:.9g}"


def _numbers(values: NDArray[np.float64]) -> str:
    """Separated by blanks, as BOP wants them; no -0."""
    return " ".join(_number(value + 0.0) for value in np.round(values, 9).flatten().tolist())

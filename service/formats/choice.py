"""The forms of an answer, chosen by `?format=`."""

from __future__ import annotations

from enum import StrEnum

from renderer.spec import SceneSpec
from service.formats.bop import bop_csv
from service.formats.detection3d import detection3d
from service.formats.mjcf import mjcf_xml
from service.schemas import InferResponse


class Format(StrEnum):
    """What `?format=` may say."""

    SCENE = "scene"
    DETECTION3D = "detection3d"
    MJCF = "mjcf"
    BOP = "bop"


MEDIA_TYPES = {
    Format.SCENE: "application/json",
    Format.DETECTION3D: "application/json",
    Format.MJCF: "application/xml",
    Format.BOP: "text/csv; charset=utf-8; header=present",
}


def write(
    form: Format, answer: InferResponse, spec: SceneSpec, *, scene_id: int = 0, im_id: int = 0
) -> str:
    """The answer as a text in some format.

    The meshes of an MJCF text take tens of milliseconds: call this off the event loop.

    Args:
        form: which.
        answer: to one picture.
        spec: of the model that gave it.
        scene_id: of the picture, in BOP's rows.
        im_id: of the picture, in BOP's rows.
    """
    match form:
        case Format.SCENE:
            return answer.model_dump_json()
        case Format.DETECTION3D:
            return detection3d(answer).model_dump_json()
        case Format.MJCF:
            return mjcf_xml(answer, spec)
        case Format.BOP:
            return bop_csv(answer, spec, scene_id=scene_id, im_id=im_id)

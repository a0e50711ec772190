"""The answer as a MuJoCo model that opens and simulates on its own."""

from __future__ import annotations

from renderer.export import scene_mjcf
from renderer.spec import SceneSpec
from service.descriptions import scene_of
from service.schemas import InferResponse, SceneDescription


def mjcf_xml(answer: InferResponse, spec: SceneSpec) -> str:
    """The MJCF text; bodies are named by class and the object's place in the answer: `cup-0`."""
    description = SceneDescription.model_validate(answer.model_dump(include={"camera", "objects"}))
    return scene_mjcf(spec, scene_of(spec, description))

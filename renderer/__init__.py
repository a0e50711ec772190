"""What a scene looks like: its description, its prior, its picture and the picture's gradient."""

from renderer.backend import BackendError, Renderer, open_renderer
from renderer.differentiable import differentiable_render
from renderer.scene import Scene
from renderer.spec import SceneSpec, SpecError

__all__ = [
    "BackendError",
    "Renderer",
    "Scene",
    "SceneSpec",
    "SpecError",
    "differentiable_render",
    "open_renderer",
]

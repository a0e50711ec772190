"""One gradient of a batch of pictures, as training and refinement take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor

from renderer import Renderer, Scene, differentiable_render
from renderer.backend import WindowRenderer
from renderer.differences import Scheme, Steps, freedoms, plan

Way = Literal["windows", "pictures"]
"""What is drawn of a moved scene: the window that can change, or the whole picture."""


class WholePictures:
    """A renderer without its knowledge of windows: all of every moved picture is drawn."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    def __getattr__(self, name: str) -> Any:
        if name == "render_windows":
            raise AttributeError(name)
        return getattr(self._renderer, name)


def ways(renderer: Renderer) -> dict[Way, Renderer]:
    """The ways that there are with this renderer."""
    found: dict[Way, Renderer] = {"pictures": cast(Renderer, WholePictures(renderer))}
    return {"windows": renderer, **found} if isinstance(renderer, WindowRenderer) else found


def gradient(
    renderer: Renderer, scene: Scene, upstream: Tensor, *, scheme: Scheme, azimuth: bool
) -> tuple[Tensor, ...]:
    """Renders and goes back once: gradients to position `[B, K, 2]`, yaw `[B, K]`, azimuth `[B]`.

    Args:
        renderer: draws the scenes.
        scene: B scenes with K slots.
        upstream: `[B, 3, H, W]`, gradient of some loss to the pictures.
        scheme: of the finite differences.
        azimuth: whether the camera's azimuth gets a gradient; the last one is left out if not.
    """
    leaves = [scene.position, scene.yaw, *([scene.azimuth] if azimuth else [])]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    names = ("position", "yaw", "azimuth")[: len(leaves)]
    free = replace(scene, **dict(zip(names, leaves, strict=True)))
    picture = differentiable_render(renderer, free, scheme=scheme)
    return torch.autograd.grad(picture, leaves, upstream)


def gradient_of_noise(
    renderer: Renderer, scene: Scene, *, scheme: Scheme, azimuth: bool, seed: int
) -> Callable[[], tuple[Tensor, ...]]:
    """What takes one gradient of a loss that depends on every pixel; the loss lies ready."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(scene), 3, renderer.height, renderer.width)
    upstream = torch.randn(shape, generator=generator).to(scene.azimuth.device)
    return partial(gradient, renderer, scene, upstream, scheme=scheme, azimuth=azimuth)


def moved_scenes(renderer: Renderer, scene: Scene, *, scheme: Scheme, azimuth: bool) -> float:
    """Moved scenes in the plan of a gradient, for each scene of the batch."""
    free = freedoms(scene, renderer.spec.symmetry_orders, azimuth=azimuth)
    steps = Steps.for_size(renderer.spec, renderer.height)
    return len(plan(free, steps, scheme)) / len(scene)

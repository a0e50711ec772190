"""How well inferred scenes explain their pictures: draw them again and compare."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from renderer.backend import Renderer
from renderer.scene import Scene

# Mean squared error above which a picture is unlike those that the model knows, for checkpoints
# that bring no threshold of their own.
LARGEST_ERROR = 0.01

# Difference in any colour channel from which on a pixel is not explained: 25 grey levels,
# well above a camera's noise and well below most objects on most tables.
RESIDUAL = 0.1


@dataclass(frozen=True)
class Quality:
    """How well the inferred scene explains the picture."""

    reconstruction_error: float  # mean squared, of pixels in [0, 1]
    explained: float  # see `qualities`
    in_distribution: bool


def qualities(renderer: Renderer, pixels: Tensor, scene: Scene, limit: float) -> list[Quality]:
    """Draws scenes again and compares them with their pictures.

    With objects, `explained` is the share of what sets the picture `x` apart from the empty table
    that the drawing explains, 1 - |x - drawing|^2 / |x - empty table|^2, cut off to [0, 1].
    Without objects it is the share of pixels that look like the empty table, to within RESIDUAL.

    Args:
        renderer: of the pictures' size.
        pixels: `[B, 3, H, W]` in [0, 1].
        scene: B scenes.
        limit: of the mean squared error, up to which a picture is one that the model knows.
    """
    if not len(scene):
        return []
    occupied = scene.presence.any(1)
    # The drawing of a scene without objects shows the empty table already.
    tables = replace(scene, presence=torch.zeros_like(scene.presence))[occupied]
    drawn, empty = renderer.render(Scene.cat([scene, tables])).split([len(scene), len(tables)])
    error = (pixels - drawn).square().mean((1, 2, 3))
    explained = 1.0 - ((pixels - drawn).abs().amax(1) > RESIDUAL).float().mean((1, 2))
    # Where even an empty table is the picture itself, there was nothing for objects to explain.
    left_open = (pixels[occupied] - empty).square().mean((1, 2, 3))
    share = torch.where(left_open > 0.0, 1.0 - error[occupied] / left_open, 0.0)
    explained[occupied] = share.clamp(0.0, 1.0)
    return [
        Quality(mean, share, mean <= limit)
        for mean, share in zip(error.tolist(), explained.tolist(), strict=True)
    ]

"""How well inferred scenes explain their pictures: draw them again and compare."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inference.checkpoint import CheckpointConfig
from inference.estimate import Estimate
from inference.novelty import doubt_of, explained, mean_error, worst_block
from renderer.backend import Renderer
from renderer.scene import Scene

# Mean squared error above which a picture is unlike those that the model knows, for checkpoints
# that bring no limits of their own.
LARGEST_ERROR = 0.01


@dataclass(frozen=True)
class Quality:
    """How well the inferred scene explains the picture."""

    reconstruction_error: float  # mean squared, of pixels in [0, 1]
    explained: float  # see `inference.novelty.explained`
    novelty: float | None  # see `inference.novelty.Limits`; None of a model without
    in_distribution: bool


def qualities(
    renderer: Renderer, pixels: Tensor, estimate: Estimate, config: CheckpointConfig
) -> list[Quality]:
    """Draws scenes again and compares them with their pictures.

    Args:
        renderer: of the pictures' size.
        pixels: `[B, 3, H, W]` in [0, 1].
        estimate: of their scenes.
        config: of the model, with its limits.
    """
    scene = estimate.scene
    if not len(scene):
        return []
    occupied = scene.presence.any(1)
    # The drawing of a scene without objects shows the empty table already.
    tables = replace(scene, presence=torch.zeros_like(scene.presence))[occupied]
    drawn, empty = renderer.render(Scene.cat([scene, tables])).split([len(scene), len(tables)])
    table = empty if bool(occupied.all()) else drawn.index_put((occupied,), empty)
    error = mean_error(pixels, drawn).tolist()
    share = explained(pixels, drawn, table, occupied).tolist()
    if config.novelty is None:
        limit = (config.quality or {}).get("reconstruction_error", LARGEST_ERROR)
        return [
            Quality(mean, part, None, mean <= limit)
            for mean, part in zip(error, share, strict=True)
        ]
    novelty = config.novelty.novelty(worst_block(pixels, drawn), doubt_of(estimate)).tolist()
    return [
        Quality(mean, part, new, new <= 1.0)
        for mean, part, new in zip(error, share, novelty, strict=True)
    ]

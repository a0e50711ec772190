"""Scenes drawn from the posterior: how else the picture could have come about."""

from __future__ import annotations

import torch

from service.descriptions import describe_scenes
from service.engine import Answer
from service.schemas import SceneDescription


@torch.inference_mode()
def draw_samples(answer: Answer, count: int) -> list[SceneDescription]:
    """Scenes drawn from what the model that answered believes of the picture.

    To be called on the engine's thread.

    Args:
        answer: to the picture.
        count: of scenes.
    """
    checkpoint = answer.checkpoint
    scenes = checkpoint.posterior.sample(answer.picture.pixels[None], count)
    return describe_scenes(checkpoint.spec, scenes)

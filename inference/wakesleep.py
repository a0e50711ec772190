"""The sleep phase: learn to invert the renderer on scenes that it drew itself.

Hinton et al. 1995: draw a scene and its picture from the model and raise log q(scene | picture).
It minimises KL(p || q) averaged over the model's pictures, needs no gradient through the renderer
and no label that a person made, and its densities come out close to calibrated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from inference.network import InferenceNetwork
from renderer.scene import Scene


class SleepLoss(NamedTuple):
    """Negative log density of the dreamt scenes, nats a scene, and its two parts."""

    loss: Tensor  # []
    azimuth: Tensor  # []
    objects: Tensor  # []


def sleep_loss(
    posterior: InferenceNetwork[Any],
    image: Tensor,
    scene: Scene,
    *,
    tolerance: float = 0.0,
    generator: torch.Generator | None = None,
) -> SleepLoss:
    """-log q(scene | image), averaged over the batch.

    Whether the order of the objects is summed out is the network's to say.

    Args:
        posterior: the network that learns.
        image: `[B, 3, H, W]` pictures in [0, 1] of `scene`, drawn by the model.
        scene: B scenes drawn from the prior.
        tolerance: m, no density is made sharper than this; see `InferenceNetwork.encode`.
        generator: chooses among the orders of crowded scenes.
    """
    log_prob = posterior.log_prob(image, scene, tolerance=tolerance, generator=generator)
    azimuth, objects = -log_prob.azimuth.mean(), -log_prob.objects.mean()
    return SleepLoss(azimuth + objects, azimuth, objects)

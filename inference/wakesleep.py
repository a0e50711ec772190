"""Sleep and wake: two ways to learn to invert a renderer by raising log q(scene | picture).

Asleep (Hinton et al., 1995) the network learns on scenes that the model drew itself. That minimises
KL(p || q) averaged over the model's pictures, needs no gradient through the renderer and no label
that a person made, and its densities come out close to calibrated.

Awake (Bornschein & Bengio, 2015) it learns on images whose scenes nobody knows: it looks for scenes
that explain them, by rendering, and imitates those that it finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inference.collapsed import Search, search
from inference.gauss_newton import Drawing
from inference.likelihood import Likelihood
from inference.network import InferenceNetwork
from inference.polish import polish
from inference.posterior import Posterior
from inference.prior import StepPrior
from inference.turns import turn
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


@dataclass(frozen=True)
class Settling:
    """What becomes of scenes that were found roughly: see `turns` and `polish`."""

    turns: int = 1  # rotations of which each object takes one; 1 leaves it as it is
    steps: int = 0  # of Gauss-Newton; 0 leaves poses as they are


class WakeLoss(NamedTuple):
    """Negative log density of the scenes that were found, and the bound that the search gives."""

    loss: Tensor  # [] nats a scene
    bound: Tensor  # [] nats an image


def wake_loss(
    posterior: Posterior,
    image: Tensor,
    target: Tensor,
    drawing: Drawing,
    likelihood: Likelihood,
    prior: StepPrior,
    options: Search,
    settling: Settling = Settling(),
    *,
    tolerance: float = 0.0,
    generator: torch.Generator | None = None,
) -> WakeLoss:
    """-log q(scene | image) of scenes found behind unlabelled images, averaged.

    Args:
        posterior: the network that learns, and proposes where to look.
        image: `[B, 3, H, W]` in [0, 1], as the network sees them.
        target: the same images as the decoder draws them, smaller perhaps.
        drawing: renders scenes.
        likelihood: of an image given a picture.
        prior: of scenes.
        options: how hard to look.
        settling: what to do with scenes that were found before they are imitated.
        tolerance: m, no density is made sharper than this; see `Posterior.encode`.
        generator: of random numbers.
    """
    context = posterior.encode(image, tolerance=tolerance)
    with torch.autocast(image.device.type, enabled=False):
        found = search(
            posterior,
            context,
            target,
            drawing.render,
            likelihood,
            prior,
            options,
            generator=generator,
        )
        scenes = found.scenes
        if settling.turns > 1:
            scenes = turn(
                scenes,
                target,
                drawing.render,
                likelihood,
                posterior.orders,
                settling.turns,
                generator=generator,
            )
        if settling.steps:
            scenes = polish(
                scenes, target, drawing, likelihood, prior, settling.steps, generator=generator
            )
        rows = torch.arange(len(image), device=image.device).repeat_interleave(options.draws)
        log_prob = posterior.log_prob_given(context.select(rows), scenes, generator=generator)
    return WakeLoss(-log_prob.total.mean(), found.bound.mean())

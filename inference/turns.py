"""Turning objects in scenes that were found: Gibbs moves among the rotations of one object.

A place and a class are found by a few tries, a yaw that fits hardly ever is: at the first it weighs
next to nothing. Among an object's rotations by equal parts of its period, the one it has being one
of them, the posterior is a finite table. To draw from it leaves the posterior as it is (a Gibbs
move along the orbit of a group: Liu & Sabatti, 2000), so that scenes drawn from it stay drawn from
it, and those drawn nearly so come nearer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from inference.distributions import wrap
from inference.likelihood import Likelihood
from renderer.scene import Scene


@torch.no_grad()
def turn(
    scene: Scene,
    image: Tensor,
    decoder: Callable[[Scene], Tensor],
    likelihood: Likelihood,
    orders: Tensor,
    turns: int,
    *,
    generator: torch.Generator | None = None,
) -> Scene:
    """Draws the yaw of each object anew, given all the rest of its scene.

    Renders `turns` scenes for each object whose turn shows. The prior of yaw is uniform.

    Args:
        scene: B * M scenes, those of one image side by side.
        image: `[B, 3, H, W]` in [0, 1], of the decoder's size.
        decoder: renders scenes.
        likelihood: of an image given a picture.
        orders: `[C]` symmetry of each class: a turn by 1 / order of a full one changes nothing, and
            with order 0 no turn does.
        turns: rotations to choose from, evenly over the object's period.
        generator: of random numbers.
    """
    copies = len(scene) // len(image)
    part = torch.arange(turns, device=image.device) / turns
    for slot in range(scene.slots):
        order = orders[scene.identity[:, slot]]
        rows = (scene.presence[:, slot] & (order > 0)).nonzero()[:, 0]  # [R]
        if not len(rows):
            continue
        choices = scene.yaw[rows, slot, None] + 2 * math.pi / order[rows, None] * part  # [R, turns]
        tried = scene[rows.repeat_interleave(turns)]
        tried.yaw[:, slot] = choices.flatten()
        pictures = decoder(tried).unflatten(0, (-1, turns))
        fit = likelihood.log_prob(image[rows // copies, None], pictures)
        chosen = torch.multinomial(fit.softmax(1), 1, generator=generator)
        yaw = scene.yaw.clone()
        yaw[rows, slot] = wrap(choices.gather(1, chosen)[:, 0])
        scene = replace(scene, yaw=yaw)
    return scene

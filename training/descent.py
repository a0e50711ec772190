"""Direct descent on the likelihood of each image, from random starts: the baseline of figure 10d.

No network: the poses of a scene are moved downhill on its negative log posterior, image by image,
as one would without amortised inference. What a scene holds, and of which class, has no gradient
and stays as it was drawn, so each image gets several starts and keeps the best.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.distributions import wrap
from inference.likelihood import Likelihood
from inference.prior import StepPrior
from renderer.backend import Renderer
from renderer.differences import Scheme
from renderer.differentiable import differentiable_render
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import Count, SceneSpec


@dataclass(frozen=True)
class Descent:
    """How to descend: from a wide and tolerant likelihood to a narrow and strict one.

    Adam, because its step is elementwise: scenes of a batch do not disturb each other, as they
    would in a line search, and a step keeps its length however flat the likelihood is, which far
    from the object it nearly is. Its averages smooth what 8-bit pictures do to finite differences,
    so that the cheap scheme, of random signs, is good enough.

    The values were tuned on scenes of `objects` that `evaluate` never draws. There, of 60 random
    starts with the right class, all end within 5 cm of the truth; with a first blur of 6 px and
    steps of half the length or less, 52 did.
    """

    steps: int = 100
    blur: tuple[float, float] = (16.0, 0.5)  # px at 64 px height, first and last
    std: tuple[float, float] = (0.3, 0.05)  # grey levels, of 1; first and last
    position_rate: float = 0.04  # m, of the first step
    yaw_rate: float = 0.3  # rad
    azimuth_rate: float = 0.02  # rad
    last_rate: float = 0.02  # of the last step, as a part of the first's
    betas: tuple[float, float] = (0.8, 0.9)
    scheme: Scheme = "random"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("--steps must be at least 1")

    def likelihood(self, progress: float, height: int) -> Likelihood:
        """The likelihood at `progress`, 0 at the first step and 1 at the last and afterwards.

        Args:
            progress: from 0 to 1.
            height: of the pictures, px; the blur is in proportion.
        """
        blur, std = (a ** (1 - progress) * b**progress for a, b in (self.blur, self.std))
        return Likelihood(std=std, blur=blur * height / 64)


def draw_starts(
    spec: SceneSpec, images: int, restarts: int, *, generator: torch.Generator
) -> Scene:
    """Where to start: for each image the empty scene, then `restarts` draws from the prior.

    As the empty scene is among them anyway, those drawn have one object at least: the others would
    be wasted.

    Args:
        spec: the world.
        images: B, how many images.
        restarts: R.
        generator: of random numbers.

    Returns:
        B * (R + 1) scenes; those of one image lie side by side.

    Raises:
        ValueError: no restart, or there is never an object in this world.
    """
    if restarts < 1:
        raise ValueError("--restarts must be at least 1")
    nothing, *something = spec.count.distribution
    if not any(something):
        raise ValueError("count.probabilities: only empty scenes; there is nothing to descend on")
    count = Count(max=spec.count.max, probabilities=(0.0, *(p / (1 - nothing) for p in something)))
    drawn = sample(spec.model_copy(update={"count": count}), images * restarts, generator=generator)
    empty = Scene.empty(images, spec.count.max)
    empty.azimuth[:] = sum(spec.camera.azimuth_range) / 2
    order = torch.cat(
        [torch.arange(images)[:, None], images + torch.arange(images * restarts).view(images, -1)],
        dim=1,
    )
    return Scene.cat([empty, drawn])[order.flatten()]


def descend(
    renderer: Renderer,
    image: Tensor,
    start: Scene,
    descent: Descent,
    *,
    generator: torch.Generator | None = None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Scene, Tensor]:
    """Moves scenes downhill on the negative log posterior, all at once.

    The loss is multiplied by the variance of the likelihood: its minimum is the same, but the
    gradient, and what Adam remembers of it, does not grow as the likelihood gets strict.

    Args:
        renderer: draws the scenes.
        image: `[B, 3, H, W]` in [0, 1].
        start: B * S scenes, those of one image side by side.
        descent: how.
        generator: of the signs of the differences.
        tick: called after each step.

    Returns:
        The scenes where they ended, and their log posterior up to the evidence, `[B, S]` nats.
    """
    prior, batch = StepPrior.of(renderer.spec), len(image)

    def log_joint(scene: Scene, picture: Tensor, likelihood: Likelihood) -> Tensor:
        explained = likelihood.log_prob(image[:, None], picture.unflatten(0, (batch, -1)))
        return explained + prior.log_prob(scene).view(batch, -1)

    rates = {"position": descent.position_rate, "yaw": descent.yaw_rate}
    if renderer.spec.camera.moves:
        rates["azimuth"] = descent.azimuth_rate
    free = {name: getattr(start, name).detach().clone().requires_grad_() for name in rates}
    scene = dataclasses.replace(start, **free)
    adam = torch.optim.Adam(
        [{"params": [free[name]], "lr": rate} for name, rate in rates.items()], betas=descent.betas
    )
    for step in range(descent.steps):
        progress = step / max(1, descent.steps - 1)
        fall = 0.5 * (1 + math.cos(math.pi * progress))
        for group, rate in zip(adam.param_groups, rates.values(), strict=True):
            group["lr"] = rate * (descent.last_rate + (1 - descent.last_rate) * fall)
        likelihood = descent.likelihood(progress, renderer.height)
        picture = differentiable_render(renderer, scene, scheme=descent.scheme, generator=generator)
        adam.zero_grad()
        (-(likelihood.std**2) * log_joint(scene, picture, likelihood).sum()).backward()
        adam.step()
        tick()
    with torch.no_grad():
        scene = Scene(*(value.detach() for value in scene.tensors()))
        scene = dataclasses.replace(scene, yaw=wrap(scene.yaw))
        picture = renderer.render(scene)
        return scene, log_joint(scene, picture, descent.likelihood(1.0, renderer.height))

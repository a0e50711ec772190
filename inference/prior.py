"""The prior of the bound: factors over the steps of the posterior (appendices B and H.3).

It differs from `renderer.prior`, which draws scenes: positions are Gaussian and objects may stand
in each other, so that a step has a density of its own, finite wherever the network may look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.distributions import LOG_2PI
from renderer.scene import Scene
from renderer.spec import SceneSpec


def unary_presence(probabilities: Tensor) -> Tensor:
    """p(z_pres = 1) of each step, given that all steps before were present: `[K]`.

    Args:
        probabilities: p(n) for n = 0 to K, any distribution, `[K + 1]`.

    The unary code of appendix B, mu_i / mu_(i - 1) with mu_n the probability of at least n.
    """
    at_least = probabilities.flip(0).cumsum(0).flip(0)
    return at_least[1:] / at_least[:-1].clamp_min(torch.finfo(at_least.dtype).tiny)


def log_presence(probabilities: Tensor, count: Tensor) -> Tensor:
    """Log probability of each step's z_pres: `[R, K]`, 0 from the second absent step on.

    Args:
        probabilities: p(n) for n = 0 to K, `[K + 1]`.
        count: `[R]` int64, how many steps are present.
    """
    on = unary_presence(probabilities)
    step = torch.arange(len(on), device=count.device)
    n = count[:, None]
    return torch.where(step < n, on.log(), torch.where(step == n, torch.log1p(-on), 0.0))


@dataclass(frozen=True)
class StepPrior:
    """p(scene) as a product over steps: presence, identity, position, yaw; and the camera.

    For the number of objects any p(n), by its unary code; identities equally likely; positions
    Gaussian, with the spread of the places where the spec puts objects; yaws equally likely, or
    Gaussian as well for a network whose yaws lie on the real line; the azimuth Gaussian, with the
    spread of its range. With respect to Lebesgue measure in m and rad.
    """

    count: tuple[float, ...]  # p(n) for n = 0 to K
    classes: int  # C
    position_std: tuple[float, float]  # m
    azimuth: tuple[float, float] | None  # mean and standard deviation, rad; None: does not move
    yaw_std: float | None = None  # rad, of yaws on the real line; None: on the circle, uniform

    @staticmethod
    def of(
        spec: SceneSpec, *, count: tuple[float, ...] | None = None, wrapped: bool = True
    ) -> StepPrior:
        """The prior with the moments of a spec's own.

        Args:
            spec: the world.
            count: p(n) for n = 0 to K, instead of the spec's.
            wrapped: whether the network's yaws are angles; if not, they are real numbers.
        """
        least, greatest = spec.camera.azimuth_range
        deviation = math.sqrt(3)  # half the width of a uniform density, in standard deviations
        x, y = spec.placement.extent
        return StepPrior(
            count=tuple(spec.count.distribution) if count is None else count,
            classes=len(spec.objects),
            position_std=(x / deviation, y / deviation),
            azimuth=((least + greatest) / 2, (greatest - least) / 2 / deviation)
            if spec.camera.moves
            else None,
            yaw_std=None if wrapped else math.pi / deviation,
        )

    def log_presence(self, scene: Scene) -> Tensor:
        """Of each step's z_pres: `[B, K]`, 0 from the second absent step on."""
        return log_presence(scene.azimuth.new_tensor(self.count), scene.count)

    def log_pose(self, position: Tensor, yaw: Tensor) -> Tensor:
        """Of positions `[..., 2]` m and yaws `[...]` rad: `[...]`, the two broadcast."""
        place = _gaussian(position, position.new_tensor(self.position_std)).sum(-1)
        if self.yaw_std is None:
            return place - LOG_2PI + torch.zeros_like(yaw)
        return place + _gaussian(yaw, yaw.new_tensor(self.yaw_std))

    def log_steps(self, scene: Scene) -> Tensor:
        """Of everything that each step says: `[B, K]`, 0 behind the end."""
        # Whatever absent slots hold must not reach a gradient.
        position = scene.position.where(scene.presence[..., None], 0.0)
        yaw = scene.yaw.where(scene.presence, 0.0)
        objects = self.log_pose(position, yaw) - math.log(self.classes)
        return self.log_presence(scene) + objects.where(scene.presence, 0.0)

    def log_azimuth(self, azimuth: Tensor) -> Tensor:
        """Of azimuths, rad: the same shape; 0 for a camera that does not move."""
        if self.azimuth is None:
            return torch.zeros_like(azimuth)
        mean, std = self.azimuth
        return _gaussian(azimuth - mean, azimuth.new_tensor(std))

    def log_once(self, scene: Scene) -> Tensor:
        """Of what is said once for a scene, the camera's azimuth: `[B]`."""
        return self.log_azimuth(scene.azimuth)

    def log_prob(self, scene: Scene) -> Tensor:
        """Log density of scenes whose objects come in this order: `[B]`."""
        return self.log_steps(scene).sum(1) + self.log_once(scene)


def _gaussian(value: Tensor, std: Tensor) -> Tensor:
    return -0.5 * (value / std).square() - std.log() - 0.5 * LOG_2PI

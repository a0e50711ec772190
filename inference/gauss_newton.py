"""Damped Gauss-Newton (Levenberg 1944, Marquardt 1963) from scenes to the images that they explain.

The error of a scene is the sum of squared differences between its picture and an image. Freedoms
come in the order of the slopes that a drawing gives: x and y of each slot, the yaw of each slot,
the camera's azimuth; D = 3K + 1 of them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from inference.distributions import wrap
from inference.likelihood import blurred
from renderer.scene import Scene

DAMPING = 1e-3  # at the start, of the curvature's own diagonal
TRIED = (0.1, 1.0, 10.0)  # times the damping; a picture costs a tenth of its slopes
RAISED = 100.0  # times the damping, where none of them helped

# A step goes no farther: what slopes say of a picture does not reach beyond an object's own size.
FARTHEST = (0.05, 0.5, 0.1)  # m, rad of a yaw, rad of the azimuth

# Standard deviations of what a picture may leave open: anywhere on a table, any way round.
OPEN = (0.5, math.pi / math.sqrt(3), 1.0)  # m, rad, rad

# Of a pixel in [0, 1]: pictures are rounded to bytes, and of an edge there are few samples.
LEAST_STD = 0.004


class Drawing(Protocol):
    """What least squares needs of a renderer: pictures, and how they change with their scenes."""

    def render(self, scene: Scene) -> Tensor:
        """Pictures `[B, 3, H, W]` in [0, 1]."""
        ...

    def jacobian(self, scene: Scene, picture: Tensor, wanted: Tensor) -> Tensor:
        """Slopes `[B, 3K + 1, 3, H, W]` of these pictures, in 1/m and 1/rad.

        Args:
            scene: B scenes.
            picture: theirs.
            wanted: `[B, 3K + 1]` bool; slopes of other freedoms are zero, as are those of
                freedoms that do not show.
        """
        ...


class Fit(NamedTuple):
    """Scenes on their way to the images that they are to explain."""

    scene: Scene
    picture: Tensor  # [B, 3, H, W] in [0, 1]
    error: Tensor  # [B] sum of squares, of blurred differences
    damping: Tensor  # [B]

    def at(self, index: Tensor) -> Fit:
        """Those at `index` `[R]`, or a mask `[B]`."""
        return Fit(self.scene[index], *(value[index] for value in self[1:]))


def squared_error(image: Tensor, picture: Tensor, blur: float = 0.0) -> Tensor:
    """Sums of squares of the blurred differences `[..., 3, H, W]`: `[...]`."""
    return blurred(image - picture, blur).square().sum(dim=(-3, -2, -1))


def begin(drawing: Drawing, scene: Scene, image: Tensor, *, blur: float = 0.0) -> Fit:
    """Scenes where they are."""
    picture = drawing.render(scene)
    error = squared_error(image, picture, blur)
    return Fit(scene, picture, error, torch.full_like(error, DAMPING))


def step(
    drawing: Drawing,
    fit: Fit,
    image: Tensor,
    *,
    blur: float = 0.0,
    wanted: Tensor | None = None,
) -> Fit:
    """One step, for each image by the best of a few dampings; none where none makes it better.

    Args:
        drawing: draws.
        fit: B scenes; their error is by the same blur.
        image: `[B, 3, H, W]`.
        blur: px, of the differences; it lends slopes their reach.
        wanted: `[B, 3K + 1]` bool, what may be moved; everything when not given.
    """
    batch, slots = fit.scene.presence.shape
    if wanted is None:
        wanted = torch.ones(batch, 3 * slots + 1, dtype=torch.bool, device=image.device)
    slopes = blurred(drawing.jacobian(fit.scene, fit.picture, wanted), blur)
    residual = blurred(image - fit.picture, blur)
    curvature, pull = normal_equations(slopes, residual)
    diagonal = curvature.diagonal(dim1=1, dim2=2)
    damping = fit.damping[:, None] * fit.damping.new_tensor(TRIED)  # [B, T]
    # What shows nothing stays where it is.
    ridge = damping.double()[..., None] * diagonal[:, None] + (diagonal == 0).double()[:, None]
    delta = torch.linalg.solve(
        curvature[:, None] + torch.diag_embed(ridge), pull[:, None].expand(-1, len(TRIED), -1)
    )
    reach = _row(FARTHEST, slots, delta)
    delta = delta.clamp(-reach, reach).to(image.dtype).flatten(0, 1)
    index = torch.arange(batch, device=image.device).repeat_interleave(len(TRIED))
    tried = moved(fit.scene[index], delta)
    pictures = drawing.render(tried)
    errors = squared_error(image[index], pictures, blur).view(batch, -1)
    error, best = errors.min(dim=1)
    better = error < fit.error
    row = torch.arange(batch, device=image.device) * len(TRIED) + best
    return Fit(
        _choose(better, tried[row], fit.scene),
        pictures[row].where(better[:, None, None, None], fit.picture),
        error.where(better, fit.error),
        damping.gather(1, best[:, None])[:, 0].where(better, RAISED * fit.damping),
    )


def normal_equations(slopes: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """J^T J `[B, D, D]` and J^T r `[B, D]`, float64.

    Args:
        slopes: J, `[B, D, 3, H, W]`.
        residual: r, `[B, 3, H, W]`.
    """
    flat, left = slopes.flatten(2), residual.flatten(1)
    return (flat @ flat.mT).double(), (flat @ left[..., None])[..., 0].double()


def moved(scene: Scene, delta: Tensor) -> Scene:
    """The scenes with all of their freedoms moved by `delta` `[B, 3K + 1]` m and rad."""
    slots = scene.slots
    place, yaw, azimuth = delta.split([2 * slots, slots, 1], dim=1)
    return replace(
        scene,
        position=scene.position + place.unflatten(1, (slots, 2)),
        yaw=wrap(scene.yaw + yaw),
        azimuth=scene.azimuth + azimuth[:, 0],
    )


def covariance(slopes: Tensor, residual: Tensor) -> Tensor:
    """Laplace's covariance of all freedoms, `[B, D, D]` float64, m and rad: (J^T J / s^2)^-1.

    s^2 is the mean squared residual where the slopes are, for each freedom where its own are: what
    is left unexplained elsewhere says nothing of how far they are to be believed. A broad prior
    keeps what the picture leaves open finite; freedoms without slopes have the prior's variance.

    Args:
        slopes: J, `[B, D, 3, H, W]`, D = 3K + 1.
        residual: `[B, 3, H, W]`.
    """
    curvature, _ = normal_equations(slopes, residual)
    squares = (slopes.flatten(2).square() @ residual.flatten(1).square()[..., None])[..., 0]
    diagonal = curvature.diagonal(dim1=1, dim2=2)
    std = (squares / diagonal.clamp_min(1e-12) + LEAST_STD**2).sqrt()  # [B, D]
    prior = _row(OPEN, (slopes.shape[1] - 1) // 3, curvature).square()
    return torch.linalg.inv(
        curvature / (std[:, :, None] * std[:, None]) + torch.diag_embed(1 / prior)
    )


def _row(kinds: tuple[float, float, float], slots: int, like: Tensor) -> Tensor:
    """A number for each kind of freedom as `[3K + 1]`."""
    place, yaw, azimuth = kinds
    return like.new_tensor([place] * (2 * slots) + [yaw] * slots + [azimuth])


def _choose(mask: Tensor, one: Scene, other: Scene) -> Scene:
    """Row by row, `one` where `mask` `[B]` is true."""
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return Scene(*(a.where(mask.view(-1, *[1] * (a.dim() - 1)), b) for a, b in pairs))

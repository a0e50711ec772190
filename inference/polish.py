"""Scenes that were found, moved to where they fit, and spread as far as the image leaves open.

Found among a few tries, a scene explains its image roughly. Least squares takes it to the nearby
maximum of the posterior, and a draw from the Gaussian with the posterior's curvature there
(Laplace's approximation) makes a sample of it again: what imitates such scenes learns how sure it
may be, not only where they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference.gauss_newton import Drawing, begin, moved, normal_equations, step
from inference.likelihood import Likelihood, blurred
from inference.prior import StepPrior
from renderer.scene import Scene


@torch.no_grad()
def polish(
    scene: Scene,
    image: Tensor,
    drawing: Drawing,
    likelihood: Likelihood,
    prior: StepPrior,
    steps: int,
    *,
    generator: torch.Generator | None = None,
) -> Scene:
    """Scenes near the given ones, drawn from Laplace's approximation of their posterior.

    Args:
        scene: B * M scenes, those of one image side by side.
        image: `[B, 3, H, W]` in [0, 1], of the drawing's size.
        drawing: draws scenes, and how their pictures change.
        likelihood: of an image given a picture.
        prior: of scenes.
        steps: of Gauss-Newton.
        generator: of random numbers.
    """
    image = image.repeat_interleave(len(scene) // len(image), 0)
    fit = begin(drawing, scene, image, blur=likelihood.blur)
    for _ in range(steps):
        fit = step(drawing, fit, image, blur=likelihood.blur)
    wanted = torch.ones(len(scene), 3 * scene.slots + 1, dtype=torch.bool, device=image.device)
    slopes = drawing.jacobian(fit.scene, fit.picture, wanted)
    curvature, _ = normal_equations(blurred(slopes, likelihood.blur), image)
    precision = curvature / likelihood.std**2 + torch.diag(1 / _spread(prior, scene.slots).square())
    # The rows of L^-T z have the covariance (L L^T)^-1.
    factor = torch.linalg.cholesky(precision)
    normal = torch.randn(
        *precision.shape[:-1], 1, generator=generator, dtype=precision.dtype, device=image.device
    )
    offset = torch.linalg.solve_triangular(factor.mT, normal, upper=True)[..., 0]
    shows = curvature.diagonal(dim1=1, dim2=2) > 0  # what does not show stays as it was drawn
    return moved(fit.scene, offset.where(shows, 0.0).to(image.dtype))


def _spread(prior: StepPrior, slots: int) -> Tensor:
    """Standard deviations under the prior `[3K + 1]`, m and rad; of angles those on the circle."""
    circle = math.pi / math.sqrt(3)
    azimuth = circle if prior.azimuth is None else prior.azimuth[1]
    values = [*prior.position_std] * slots + [circle] * slots + [azimuth]
    return torch.tensor(values, dtype=torch.float64)

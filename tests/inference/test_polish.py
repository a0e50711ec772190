"""Laplace's approximation where it is exact: pictures that are linear in the scene."""

import math

import pytest
import torch
from torch import Tensor

from inference.likelihood import Likelihood
from inference.polish import polish
from inference.prior import StepPrior
from renderer.scene import Scene

COPIES = 6000
STD = 0.3


class Linear:
    """Pictures `[R, 3, 2, 2]`, a fixed linear function of x, y and yaw of present objects."""

    def __init__(self, slots: int, generator: torch.Generator) -> None:
        self.slopes = torch.randn(3 * slots + 1, 3, 2, 2, generator=generator)
        self.slopes[-1] = 0.0  # the camera does not move

    def _shown(self, scene: Scene) -> Tensor:
        present = scene.presence.float()
        return torch.cat([present.repeat_interleave(2, 1), present, torch.ones(len(scene), 1)], 1)

    def render(self, scene: Scene) -> Tensor:
        freedoms = torch.cat([scene.position.flatten(1), scene.yaw, scene.azimuth[:, None]], 1)
        return torch.einsum("rd,dchw->rchw", freedoms * self._shown(scene), self.slopes)

    def jacobian(self, scene: Scene, picture: Tensor, wanted: Tensor) -> Tensor:
        shown = (self._shown(scene) * wanted)[:, :, None, None, None]
        return shown * self.slopes


def prior(slots: int) -> StepPrior:
    return StepPrior(tuple([1 / (slots + 1)] * (slots + 1)), 1, (0.2, 0.3), None)


@pytest.mark.parametrize("slots", [1, 2])
def test_draws_have_the_mean_and_covariance_of_the_posterior(
    slots: int, generator: torch.Generator
) -> None:
    drawing = Linear(slots, generator)
    truth = Scene.empty(1, slots)
    truth.presence[:] = True
    truth.position[:] = torch.tensor([0.02, -0.03])
    truth.yaw[:] = 0.1
    image = drawing.render(truth)
    start = truth[torch.zeros(COPIES, dtype=torch.int64)]
    found = polish(start, image, drawing, Likelihood(STD), prior(slots), 12, generator=generator)
    drawn = torch.cat([found.position.flatten(1), found.yaw], 1).double()
    columns = drawing.slopes[:-1].flatten(1).double()
    spread = [0.2, 0.3] * slots + [math.pi / math.sqrt(3)] * slots
    precision = columns @ columns.T / STD**2 + torch.diag(torch.tensor(spread).double() ** -2)
    expected = torch.linalg.inv(precision)
    exact = torch.cat([truth.position.flatten(1), truth.yaw], 1)[0].double()
    deviation = expected.diagonal().sqrt()
    assert ((drawn.mean(0) - exact).abs() < 4 * deviation / math.sqrt(COPIES) + 1e-3).all()
    scale = deviation[:, None] * deviation
    assert ((drawn.T.cov() - expected).abs() / scale).max() < 0.08


def test_each_scene_goes_to_its_own_image_and_nothing_else_moves(
    generator: torch.Generator,
) -> None:
    drawing = Linear(2, generator)
    truth = Scene.empty(3, 2)
    truth.presence[:, 0] = True
    truth.position[:, 0] = 0.04 * torch.randn(3, 2, generator=generator)
    start = Scene.empty(6, 2)
    start.presence[:, 0] = True
    start.yaw[:, 1] = 0.7  # of a slot without an object
    sharp = Likelihood(1e-4)
    found = polish(start, drawing.render(truth), drawing, sharp, prior(2), 8, generator=generator)
    expected = truth.position[:, 0].repeat_interleave(2, 0)
    torch.testing.assert_close(found.position[:, 0], expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.yaw[:, 1], start.yaw[:, 1])
    assert torch.equal(found.position[:, 1], start.position[:, 1])
    assert torch.equal(found.azimuth, start.azimuth)


def test_an_empty_table_stays_empty(generator: torch.Generator) -> None:
    start = Scene.empty(2, 1)
    image = torch.zeros(2, 3, 2, 2)
    found = polish(
        start, image, Linear(1, generator), Likelihood(STD), prior(1), 2, generator=generator
    )
    for before, after in zip(start.tensors(), found.tensors(), strict=True):
        torch.testing.assert_close(before, after)

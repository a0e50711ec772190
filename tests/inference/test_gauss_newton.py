"""Least squares where slopes are known in closed form: pictures of soft discs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from inference.gauss_newton import OPEN, begin, covariance, moved, normal_equations, step
from renderer.scene import Scene

SIZE = 24


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Discs:
    """Each object a soft disc with a bright side, seen from above by a camera that turns."""

    def render(self, scene: Scene) -> Tensor:
        cos, sin = scene.azimuth.cos()[:, None], scene.azimuth.sin()[:, None]
        x, y = scene.position.unbind(-1)
        axis = torch.linspace(-0.5, 0.5, SIZE, dtype=x.dtype)
        right = axis - (cos * x + sin * y)[..., None, None]  # [B, K, 1, W]
        down = axis[:, None] - (cos * y - sin * x)[..., None, None]
        disc = torch.exp(-(right.square() + down.square()) / (2 * 0.08**2))
        turned = (scene.yaw - scene.azimuth[:, None])[..., None, None]
        side = right * turned.cos() + down * turned.sin()
        shade = torch.stack([disc, disc * (1 + 4 * side), disc * 0.5], 2)  # [B, K, 3, H, W]
        return (shade * scene.presence[..., None, None, None]).sum(1)

    def jacobian(self, scene: Scene, picture: Tensor, wanted: Tensor) -> Tensor:
        double = Scene(
            scene.presence,
            scene.identity,
            scene.position.double(),
            scene.yaw.double(),
            scene.azimuth.double(),
        )
        slopes = []
        for way in 1e-4 * torch.eye(wanted.shape[1], dtype=torch.float64):
            ends = [self.render(moved(double, end.expand(len(scene), -1))) for end in (way, -way)]
            slopes.append((ends[0] - ends[1]) / 2e-4)
        return torch.stack(slopes, 1).to(picture) * wanted[..., None, None, None]


def scenes(count: int = 12, slots: int = 2) -> Scene:
    generator = seeded(4)
    presence = torch.arange(slots) < torch.randint(1, slots + 1, (count, 1), generator=generator)
    position = 0.6 * torch.rand(count, slots, 2, generator=generator) - 0.3
    yaw = 6 * torch.rand(count, slots, generator=generator) - 3
    azimuth = 0.4 * torch.rand(count, generator=generator)
    return Scene(presence, torch.zeros(count, slots, dtype=torch.int64), position, yaw, azimuth)


def disturbed(scene: Scene, size: float) -> Scene:
    width = 3 * scene.slots + 1
    noise = torch.randn(len(scene), width, generator=seeded(5))
    return moved(scene, size * noise)


def test_scenes_are_found_again() -> None:
    drawing, true = Discs(), scenes()
    image = drawing.render(true)
    fit = begin(drawing, disturbed(true, 0.02), image)
    first = fit.error
    for _ in range(8):
        before = fit.error
        fit = step(drawing, fit, image)
        assert (fit.error <= before).all()
    assert (fit.error < 1e-6 * first).all()
    there = true.presence
    # Camera and table turn together: what is seen is where objects are in the camera's view.
    torch.testing.assert_close(drawing.render(fit.scene), image, atol=1e-4, rtol=0)
    assert torch.equal(fit.scene.presence, there)


def test_a_step_never_ends_worse_however_wrong_the_slopes() -> None:
    class Wrong(Discs):
        def jacobian(self, scene: Scene, picture: Tensor, wanted: Tensor) -> Tensor:
            return -super().jacobian(scene, picture, wanted)

    drawing, true = Wrong(), scenes()
    image = drawing.render(true)
    fit = begin(drawing, disturbed(true, 0.02), image)
    after = step(drawing, fit, image)
    assert (after.error <= fit.error).all()
    stuck = after.error == fit.error
    assert stuck.any()
    assert torch.equal(after.scene.position[stuck], fit.scene.position[stuck])
    assert (after.damping[stuck] > fit.damping[stuck]).all()


def test_only_what_may_move_does() -> None:
    drawing, true = Discs(), scenes()
    image = drawing.render(true)
    start = disturbed(true, 0.02)
    wanted = torch.zeros(len(true), 7, dtype=torch.bool)
    wanted[:, :2] = True  # of the first object, where it is
    fit = step(drawing, begin(drawing, start, image), image, wanted=wanted)
    assert not torch.equal(fit.scene.position[:, 0], start.position[:, 0])
    assert torch.equal(fit.scene.position[:, 1], start.position[:, 1])
    torch.testing.assert_close(fit.scene.yaw, start.yaw)
    assert torch.equal(fit.scene.azimuth, start.azimuth)


def test_blur_lends_slopes_their_reach() -> None:
    drawing, true = Discs(), scenes(slots=1)
    image = drawing.render(true)
    far = replace(true, position=true.position + torch.tensor([0.3, 0.0]))
    found = []
    for blur in (0.0, 4.0):
        fit = begin(drawing, far, image, blur=blur)
        for _ in range(8):
            fit = step(drawing, fit, image, blur=blur)
        missed = (drawing.render(fit.scene) - image).square().sum((1, 2, 3))
        found.append(float((missed < 0.1).float().mean()))
    assert found[0] < 0.1 and found[1] > 0.4


def test_spreads_are_those_of_what_noise_does() -> None:
    drawing, true = Discs(), scenes(1)
    true = replace(true, presence=torch.ones_like(true.presence))
    clean, std = drawing.render(true), 0.02
    count = 200
    many = true[torch.zeros(count, dtype=torch.int64)]
    image = clean + std * torch.randn(count, *clean.shape[1:], generator=seeded())
    wanted = torch.ones(count, 7, dtype=torch.bool)
    wanted[:, -1] = False  # of itself a turn of the camera and of the table are one
    fit = begin(drawing, many, image)
    for _ in range(3):
        fit = step(drawing, fit, image, wanted=wanted)
    found = torch.cat([fit.scene.position.flatten(1), fit.scene.yaw], 1)
    slopes = drawing.jacobian(fit.scene, fit.picture, wanted)
    spread = covariance(slopes, image - fit.picture)[:, :-1, :-1]
    assert float((found.T.cov().double() / spread.mean(0)).diagonal().sub(1).abs().max()) < 0.3
    offset = (found - found.mean(0)).double()
    distance = (offset * torch.linalg.solve(spread, offset)).sum(1)
    assert distance.mean() == pytest.approx(6, rel=0.15)  # as many as there are freedoms


def test_what_a_picture_leaves_open_has_the_priors_spread() -> None:
    drawing, scene = Discs(), scenes(3)
    scene = replace(scene, presence=torch.zeros_like(scene.presence))
    picture = drawing.render(scene)
    wanted = torch.ones(3, 7, dtype=torch.bool)
    spread = covariance(drawing.jacobian(scene, picture, wanted), torch.zeros_like(picture))
    place, yaw, azimuth = OPEN
    expected = torch.tensor([place] * 4 + [yaw] * 2 + [azimuth]).double().square()
    torch.testing.assert_close(spread, torch.diag(expected).expand(3, 7, 7))


def test_normal_equations_are_those_of_linear_least_squares() -> None:
    slopes = torch.randn(2, 5, 3, 4, 4, generator=seeded())
    residual = torch.randn(2, 3, 4, 4, generator=seeded(1))
    curvature, pull = normal_equations(slopes, residual)
    for b in range(2):
        solution = torch.linalg.lstsq(
            slopes[b].flatten(1).T.double(), residual[b].flatten()[:, None].double()
        ).solution[:, 0]
        torch.testing.assert_close(
            torch.linalg.solve(curvature[b], pull[b]), solution, atol=1e-4, rtol=1e-4
        )

"""Gibbs moves among rotations, against the posterior of yaw that they are to draw from."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from inference.likelihood import Likelihood
from inference.turns import turn
from renderer.scene import Scene

LIKELIHOOD = Likelihood(std=0.5)
ORDERS = torch.tensor([1, 2, 0])
COPIES = 4000


def decode(scene: Scene) -> Tensor:
    """Pictures `[R, 3, 1, 1]` that tell how each object is turned, modulo its symmetry."""
    order = ORDERS[scene.identity]
    present = scene.presence.float()
    size = torch.arange(1, scene.slots + 1)  # so that it matters which is turned
    turned = (size * present * torch.cos(order * scene.yaw)).sum(1)
    leaning = (size * present * torch.sin(order * scene.yaw)).sum(1)
    return torch.stack([turned, leaning, present.sum(1)], 1)[..., None, None]


def scenes(count: int, identity: list[int], generator: torch.Generator) -> Scene:
    """Scenes with yaws drawn from the prior."""
    scene = Scene.empty(count, len(identity))
    scene.presence[:] = True
    scene.identity[:] = torch.tensor(identity)
    scene.yaw[:] = 2 * math.pi * torch.rand(scene.yaw.shape, generator=generator) - math.pi
    return scene


def moved(scene: Scene, image: Tensor, turns: int, generator: torch.Generator) -> Scene:
    return turn(scene, image, decode, LIKELIHOOD, ORDERS, turns, generator=generator)


def test_moves_lead_to_the_posterior_of_yaw(generator: torch.Generator) -> None:
    """From the prior, after enough moves the mean direction is that of the exact posterior.

    The rotations are those of one group, so the offset within a part never changes: the exact
    posterior is averaged over offsets accordingly.
    """
    truth = scenes(1, [0], generator)
    truth.yaw[:] = 0.7
    image = decode(truth)
    turns = 6
    found = moved(scenes(COPIES, [0], generator), image, turns, generator)
    offset = (torch.arange(500) + 0.5) / 500 * 2 * math.pi / turns
    grid = offset[:, None] + 2 * math.pi / turns * torch.arange(turns)
    every = scenes(grid.numel(), [0], generator)
    every = replace(every, yaw=grid.reshape(-1, 1))
    weight = LIKELIHOOD.log_prob(image, decode(every)).view(500, turns).softmax(1)
    for of in (torch.cos, torch.sin):
        expected = float((weight * of(grid)).sum(1).mean())
        assert abs(float(of(found.yaw).mean()) - expected) < 0.03


def test_draws_from_the_posterior_stay_drawn_from_it(generator: torch.Generator) -> None:
    """Two objects, one of them alike after half a turn: the joint posterior is kept."""
    truth = scenes(1, [0, 1], generator)
    truth.yaw[:] = torch.tensor([0.7, -0.4])
    image = decode(truth)
    prior = scenes(200_000, [0, 1], generator)
    weight = LIKELIHOOD.log_prob(image, decode(prior)).softmax(0)
    exact = prior[torch.multinomial(weight, COPIES, True, generator=generator)]
    after = moved(exact, image, 5, generator)
    assert (after.yaw != exact.yaw).any()
    for of in (torch.cos, torch.sin):
        before_mean, after_mean = (of(ORDERS[:2] * s.yaw).mean(0) for s in (exact, after))
        assert (before_mean - after_mean).abs().max() < 0.04
    covariance = [torch.corrcoef(torch.sin(s.yaw).T)[0, 1] for s in (exact, after)]
    assert abs(float(covariance[0] - covariance[1])) < 0.06


def test_only_what_shows_is_turned(generator: torch.Generator) -> None:
    before = scenes(8, [2, 0, 0], generator)
    before.presence[:, 2] = False
    after = moved(before, decode(before), 4, generator)
    torch.testing.assert_close(after.yaw[:, [0, 2]], before.yaw[:, [0, 2]])
    kept = (after.presence == before.presence).all() and (after.position == before.position).all()
    assert kept


def test_an_object_takes_the_turn_that_fits(generator: torch.Generator) -> None:
    """Each image has its own scenes, and each object turns for its own image."""
    truth = scenes(5, [0, 1], generator)
    image = decode(truth)
    lost = replace(truth, yaw=truth.yaw + 2 * math.pi / ORDERS[:2] * torch.tensor([0.25, 0.5]))
    copies = lost[torch.arange(5).repeat_interleave(3)]
    sharp = Likelihood(std=0.02)
    found = copies
    for _ in range(4):
        found = turn(found, image, decode, sharp, ORDERS, 4, generator=generator)
    error = LIKELIHOOD.log_prob(image[:, None], decode(found).unflatten(0, (5, 3)))
    best = LIKELIHOOD.log_prob(image, image)
    assert ((best[:, None] - error) < 1e-3).float().mean() > 0.6

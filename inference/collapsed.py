"""The collapsed bound: presence and identity summed out step by step, poses by importance.

A step draws where its object might stand, and every class is rendered there: which class it is,
and whether there is anything, need not be guessed but follow from the image. Over the steps this is
sequential Monte Carlo (Doucet & Johansen, 2011) whose n-th target is the posterior of scenes with
exactly n objects; each gives an unbiased estimate Z_n of p(image | n), so that

    log sum_n p(n) Z_n  <=  log p(image)  on average,

a bound tighter than the ELBO, with nothing in it that has to be scored. Scenes drawn in proportion
to their weights are draws from the posterior as far as it was found: to raise log q of them is the
wake phase of Bornschein & Bengio (2015), and images that no draw explains pull nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from inference.cell import Objects
from inference.distributions import PlaneGaussian, VonMises, wrap
from inference.likelihood import Likelihood
from inference.posterior import Context, Posterior
from inference.prior import StepPrior
from renderer.camera import from_view, to_view
from renderer.scene import Scene

IMPOSSIBLE = -1e9  # nats; finite, so that images that nothing explains give numbers


@dataclass(frozen=True)
class Search:
    """How hard to look for the scenes that explain an image."""

    particles: int = 4  # S, poses tried at each step
    draws: int = 4  # M, scenes drawn from what was found
    explore: float = 0.2  # share of poses drawn from the prior: what q has given up is found again


class Found(NamedTuple):
    """Scenes that explain the images, and how well."""

    bound: Tensor  # [B] log of the unbiased estimate of p(image), nats
    log_count: Tensor  # [B, K + 1] log p(n) Z_n; their softmax estimates p(n | image)
    scenes: Scene  # B * M drawn from the weights; those of one image lie side by side


@torch.no_grad()
def search(
    posterior: Posterior,
    context: Context,
    image: Tensor,
    decoder: Callable[[Scene], Tensor],
    likelihood: Likelihood,
    prior: StepPrior,
    options: Search,
    *,
    generator: torch.Generator | None = None,
) -> Found:
    """Looks for the scenes behind images, with the posterior for a guide.

    Renders 1 + K * C scenes for each particle of each image, and for each scene that is drawn
    `turns` for each of its objects. With a camera that does not move the empty table, the 1, is
    rendered once for all.

    Args:
        posterior: proposes poses.
        context: of the B images, encoded.
        image: `[B, 3, H, W]` in [0, 1], of the decoder's size.
        decoder: renders scenes.
        likelihood: of an image given a picture.
        prior: of scenes.
        options: how hard to look.
        generator: of random numbers.
    """
    batch, particles, classes = len(image), options.particles, prior.classes
    log_p_count = image.new_tensor(prior.count).log()
    b = torch.arange(batch, device=image.device).repeat_interleave(particles)
    context = context.select(b)
    angle, log_weight = _draw_azimuths(posterior, context, prior, options, generator)
    scene = Scene.empty(len(b), posterior.slots).to(image.device)
    scene.azimuth[:] = angle
    if prior.azimuth is None:  # one empty table looks like another
        explained = likelihood.log_prob(image, decoder(scene[:1]))[b]  # [B * S]
    else:
        explained = _log_prob(image, scene, decoder, likelihood)
    log_weight = log_weight + explained
    table = log_weight.view(batch, -1)
    # For each count: log Z_n, the scenes that stand for it, and their log weights.
    stages = [_Stage(table.logsumexp(1) - math.log(particles), scene, table)]
    cells = context.proposals.map
    state = posterior.cell.start(context.summary, angle, cells.salience.shape[1])
    for step in range(posterior.slots):
        log_weights = posterior.cell.attend(state, cells).log_weights
        position, yaw, log_q = _propose(
            posterior, context, log_weights, angle, prior, options, generator
        )
        tried = _with_object(scene, step, position, yaw)
        now = _log_prob(image, tried, decoder, likelihood).view(-1, classes)
        log_p = prior.log_pose(position[:, None], yaw) - math.log(classes)
        table = (log_weight - explained)[:, None] + now + log_p - log_q
        table = table.clamp_min(IMPOSSIBLE).view(batch, -1)
        stages.append(_Stage(table.logsumexp(1) - math.log(particles), tried, table))
        if step + 1 == posterior.slots:
            break
        rows = _resample(table, particles, generator)
        scene, explained = tried[rows], now.flatten()[rows]
        log_weight = stages[-1].log_z[b]
        angle = scene.azimuth
        last = (slice(None), step)
        newest = Objects(
            scene.identity[last],
            to_view(posterior.spec.camera, scene.position[last], angle),
            scene.yaw[last] - angle,
        )
        # Particles of one image share its context: only what they remember differs.
        state = posterior.cell.advance(state.select(rows // classes), cells, newest, angle)
    log_count = torch.stack([stage.log_z for stage in stages], 1) + log_p_count
    log_count = log_count.clamp_min(IMPOSSIBLE)
    scenes = _draw_scenes(stages, log_count, options.draws, generator)
    return Found(log_count.logsumexp(1), log_count, scenes)


class _Stage(NamedTuple):
    """The scenes with exactly n objects that were tried."""

    log_z: Tensor  # [B] log of the estimate of p(image | n)
    scenes: Scene  # B * A, those of one image side by side
    log_weight: Tensor  # [B, A]


def _log_prob(
    image: Tensor, scene: Scene, decoder: Callable[[Scene], Tensor], likelihood: Likelihood
) -> Tensor:
    """Log likelihoods `[R]` of images `[B, 3, H, W]` under R / B scenes each, side by side."""
    pictures = decoder(scene).unflatten(0, (len(image), -1))
    return likelihood.log_prob(image[:, None], pictures).flatten()


def _draw_azimuths(
    posterior: Posterior,
    context: Context,
    prior: StepPrior,
    options: Search,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """The camera's azimuth for each particle, rad, and log p - log q of it: `[R]` each."""
    azimuth, _ = posterior.draw_azimuth(context, generator)
    if prior.azimuth is None:
        return azimuth, torch.zeros_like(azimuth)
    mean, std = prior.azimuth
    anywhere = mean + std * torch.empty_like(azimuth).normal_(generator=generator)
    explores = _explores(azimuth, options, generator)
    azimuth = torch.where(explores, anywhere, azimuth)
    log_p = prior.log_azimuth(azimuth)
    return azimuth, log_p - _defended(context.azimuth.log_prob(azimuth), log_p, options)


def _propose(
    posterior: Posterior,
    context: Context,
    log_weights: Tensor,
    angle: Tensor,
    prior: StepPrior,
    options: Search,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One place for the next object of each particle, and a yaw for each class there.

    Returns:
        Positions `[R, 2]` m in the table frame, yaws `[R, C]` rad, and `[R, C]` the log density
        with which that position and that class's yaw are drawn.
    """
    camera, orders, proposals = posterior.spec.camera, posterior.orders, context.proposals
    rows = torch.arange(len(angle), device=angle.device)
    g = torch.multinomial(log_weights.exp(), 1, generator=generator)[:, 0]
    seen = PlaneGaussian(*(value[rows, g] for value in proposals.position)).sample(generator)
    turned = VonMises(*(value[rows, g] for value in proposals.turned)).sample(generator)
    uniform = torch.rand(turned.shape, device=angle.device, generator=generator)
    branch = torch.floor(uniform * orders.clamp_min(1))
    yaw = (turned + 2 * math.pi * branch) / orders.clamp_min(1)
    # A class without a yaw to see has any.
    yaw = torch.where(orders == 0, 2 * math.pi * uniform, yaw) + angle[:, None]
    position = from_view(camera, seen, angle)

    explores = _explores(angle, options, generator)
    std = position.new_tensor(prior.position_std)
    anywhere = std * torch.empty_like(position).normal_(generator=generator)
    anyhow = 2 * math.pi * torch.rand(yaw.shape, device=yaw.device, generator=generator)
    position = torch.where(explores[:, None], anywhere, position)
    yaw = wrap(torch.where(explores[:, None], anyhow, yaw))

    place = proposals.position.log_prob(to_view(camera, position, angle)[:, None])  # [R, G]
    angles = orders * (yaw - angle[:, None])
    turn = proposals.turned.log_prob(angles[:, None])  # [R, G, C]
    log_q = (log_weights[..., None] + place[..., None] + turn).logsumexp(1)
    return position, yaw, _defended(log_q, prior.log_pose(position[:, None], yaw), options)


def _explores(like: Tensor, options: Search, generator: torch.Generator | None) -> Tensor:
    """Which of the particles `[R]` draw from the prior this time."""
    return torch.rand(like.shape, device=like.device, generator=generator) < options.explore


def _defended(log_q: Tensor, log_p: Tensor, options: Search) -> Tensor:
    """Log density of drawing from q, or now and then from the prior."""
    if options.explore == 0:
        return log_q
    return torch.logaddexp(log_q + math.log1p(-options.explore), log_p + math.log(options.explore))


def _with_object(scene: Scene, step: int, position: Tensor, yaw: Tensor) -> Scene:
    """Scenes with an object of every class at `step`: `R * C`, the classes side by side."""
    classes = yaw.shape[1]
    rows = torch.arange(len(position), device=yaw.device).repeat_interleave(classes)
    tried = scene[rows]
    tried.presence[:, step] = True
    tried.identity[:, step] = torch.arange(classes, device=yaw.device).repeat(len(position))
    tried.position[:, step] = position[rows]
    tried.yaw[:, step] = yaw.flatten()
    return tried


def _resample(log_weight: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draws `count` of each image's alternatives `[B, A]`, as rows of B * A: `[B * count]`.

    Systematic: an alternative is drawn as often as its weight says, rounded up or down.
    """
    batch, alternatives = log_weight.shape
    edges = log_weight.double().softmax(1).cumsum(1)
    offset = torch.rand(batch, 1, device=edges.device, generator=generator, dtype=edges.dtype)
    points = (torch.arange(count, device=edges.device) + offset) / count * edges[:, -1:]
    chosen = torch.searchsorted(edges, points, right=True).clamp_max(alternatives - 1)
    first = torch.arange(batch, device=edges.device)[:, None] * alternatives
    return (first + chosen).flatten()


def _draw_scenes(
    stages: list[_Stage], log_count: Tensor, draws: int, generator: torch.Generator | None
) -> Scene:
    """Draws scenes of all counts in proportion to their weights: `B * draws`."""
    counts = torch.multinomial(log_count.softmax(1), draws, True, generator=generator).flatten()
    drawn = [stage.scenes[_resample(stage.log_weight, draws, generator)] for stage in stages]
    row = torch.arange(len(counts), device=counts.device)
    every = Scene.cat(drawn)
    return every[counts * len(counts) + row]

"""The collapsed bound against what it estimates, for decoders that can be integrated by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inference.collapsed import Found, Search, search
from inference.likelihood import Likelihood
from inference.posterior import Posterior
from inference.prior import StepPrior
from renderer.scene import Scene

Tiny = Callable[..., Posterior]
LIKELIHOOD = Likelihood(std=0.5)
COPIES = 600  # of one image, each searched on its own
SIZE = 2  # px, of the decoder's pictures


def decode(scene: Scene) -> Tensor:
    """Pictures `[R, 3, 2, 2]`: smooth in every pose, different for every class, additive."""
    present = scene.presence.float()
    x, y = scene.position.unbind(-1)
    kind = scene.identity.float()
    turn = scene.yaw + 0.3 * scene.azimuth[:, None]
    features = [
        torch.cos(2 * x + kind), torch.sin(3 * y - kind), 0.5 * torch.cos(turn) + 0.2 * x * y, kind
    ]  # fmt: skip
    values = [(value * present).sum(1) + 0.2 * scene.azimuth for value in features]
    return torch.stack(values, 1).view(-1, 1, SIZE, SIZE).expand(-1, 3, -1, -1)


def log_evidence(prior: StepPrior, slots: int, image: Tensor, generator: torch.Generator) -> float:
    """Of p(image), by many draws from the prior."""
    draws = 200_000
    count = torch.multinomial(torch.tensor(prior.count), draws, True, generator=generator)
    scene = Scene.empty(draws, slots)
    scene.presence[:] = torch.arange(slots) < count[:, None]
    scene.identity[:] = torch.randint(prior.classes, (draws, slots), generator=generator)
    std = torch.tensor(prior.position_std)
    scene.position[:] = std * torch.randn(draws, slots, 2, generator=generator)
    scene.yaw[:] = 2 * math.pi * torch.rand(draws, slots, generator=generator)
    if prior.azimuth is not None:
        mean, deviation = prior.azimuth
        scene.azimuth[:] = mean + deviation * torch.randn(draws, generator=generator)
    values = LIKELIHOOD.log_prob(image[None], decode(scene)).double()
    return float(values.logsumexp(0) - math.log(draws))


def search_copies(
    posterior: Posterior,
    image: Tensor,
    prior: StepPrior,
    options: Search,
    generator: torch.Generator,
) -> Found:
    """Searches for what explains an image, from a context that has nothing to do with it."""
    context = posterior.encode(torch.rand(1, 3, 64, 64, generator=generator))
    return search(
        posterior,
        context.select(torch.zeros(COPIES, dtype=torch.int64)),
        image.expand(COPIES, -1, -1, -1),
        decode,
        LIKELIHOOD,
        prior,
        options,
        generator=generator,
    )


@pytest.mark.parametrize("name", ["objects", "tabletop-fixed", "tabletop"])
@pytest.mark.parametrize("explore", [0.0, 0.3])
def test_its_exponential_is_on_average_the_evidence(
    name: str, explore: float, tiny: Tiny, generator: torch.Generator
) -> None:
    """Unbiased whatever the posterior proposes: of one object and several, with any camera."""
    posterior = tiny(name, gain=1.0)
    prior = StepPrior.of(posterior.spec)
    truth = Scene.empty(1, posterior.slots)
    truth.presence[:, 0] = True
    truth.position[:, 0] = torch.tensor([0.1, -0.2])
    image = decode(truth)
    options = Search(particles=12, draws=1, explore=explore)
    found = search_copies(posterior, image, prior, options, generator)
    expected = log_evidence(prior, posterior.slots, image[0], generator)
    ratio = (found.bound.double() - expected).exp()
    deviation = float(ratio.std()) / math.sqrt(COPIES)
    assert deviation < 0.1  # else the next line would say nothing
    assert abs(float(ratio.mean()) - 1) < 4 * deviation + 0.01
    assert float(found.bound.mean()) < expected  # a lower bound


def test_scenes_come_in_proportion_to_the_posterior(tiny: Tiny, generator: torch.Generator) -> None:
    """Count and class of what is drawn, against the enumerated posterior of one object."""
    posterior = tiny("objects", gain=1.0)
    prior = StepPrior.of(posterior.spec)
    truth = Scene.empty(1, 1)
    truth.presence[:], truth.identity[:] = True, 1
    image = decode(truth)
    options = Search(particles=64, draws=2, explore=0.5)
    found = search_copies(posterior, image, prior, options, generator)
    weights = []
    for choice in (None, 0, 1, 2):
        p = list(prior.count) if choice is None else [0.0, 1.0]
        scenes = Scene.empty(100_000, 1)
        if choice is not None:
            scenes.presence[:], scenes.identity[:] = True, choice
            scenes.position[:, 0] = torch.tensor(prior.position_std) * torch.randn(
                100_000, 2, generator=generator
            )
            scenes.yaw[:] = 2 * math.pi * torch.rand(100_000, 1, generator=generator)
        mean = LIKELIHOOD.log_prob(image, decode(scenes)).double().exp().mean()
        share = p[0] if choice is None else prior.count[1] / 3
        weights.append(share * mean)
    expected = torch.stack(weights) / sum(weights)
    scenes = found.scenes
    drawn = torch.where(scenes.presence[:, 0], 1 + scenes.identity[:, 0], 0)
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    assert shares.tolist() == pytest.approx(expected.tolist(), abs=0.06)


def test_more_particles_bound_more_tightly(tiny: Tiny, generator: torch.Generator) -> None:
    posterior = tiny("tabletop-fixed", gain=1.0)
    truth = Scene.empty(1, 3)
    truth.presence[:, :2] = True
    truth.position[:, 0] = 0.2
    image = decode(truth).expand(500, -1, -1, -1)
    context = posterior.encode(torch.rand(1, 3, 64, 64, generator=generator))
    context = context.select(torch.zeros(500, dtype=torch.int64))
    prior = StepPrior.of(posterior.spec)
    bounds = [
        float(
            search(
                posterior, context, image, decode, Likelihood(std=0.2), prior,
                Search(particles=particles, draws=1), generator=generator,
            ).bound.mean()
        )
        for particles in (1, 4, 16)
    ]  # fmt: skip
    assert bounds[0] < bounds[1] < bounds[2]


def test_an_image_that_nothing_explains_gives_numbers(
    tiny: Tiny, generator: torch.Generator
) -> None:
    posterior = tiny("tabletop")
    image = torch.full((2, 3, SIZE, SIZE), 1e4)
    found = search(
        posterior, posterior.encode(torch.rand(2, 3, 64, 64, generator=generator)), image, decode,
        Likelihood(std=0.01), StepPrior.of(posterior.spec), Search(), generator=generator,
    )  # fmt: skip
    assert bool(found.bound.isfinite().all())
    assert len(found.scenes) == 2 * Search().draws

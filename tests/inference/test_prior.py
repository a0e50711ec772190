"""The stepwise prior of the bound."""

import math

import pytest
import torch

from inference.prior import StepPrior, unary_presence
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec


@pytest.mark.parametrize(
    "counts", [(0.25, 0.25, 0.25, 0.25), (0.9, 0.0, 0.1, 0.0), (0.0, 0.0, 1.0)]
)
def test_the_unary_code_gives_back_any_distribution_over_counts(counts: tuple[float, ...]) -> None:
    """Appendix B: the steps' probabilities multiply to p(n)."""
    on = unary_presence(torch.tensor(counts, dtype=torch.float64)).tolist()
    for n, expected in enumerate(counts):
        stops = 1 - on[n] if n < len(on) else 1.0
        assert math.prod(on[:n]) * stops == pytest.approx(expected, abs=1e-12)


def test_presence_sums_to_the_probability_of_the_count() -> None:
    spec = SceneSpec.load("tabletop")
    prior = StepPrior.of(spec, count=(0.1, 0.2, 0.3, 0.4))
    scene = Scene.empty(4, 3)
    scene.presence[:] = torch.arange(3) < torch.arange(4)[:, None]
    found = prior.log_presence(scene).sum(1).exp()
    torch.testing.assert_close(found, torch.tensor([0.1, 0.2, 0.3, 0.4]))


@pytest.mark.parametrize("name", ["objects", "tabletop"])
def test_it_has_the_moments_of_the_scenes(name: str, generator: torch.Generator) -> None:
    spec = SceneSpec.load(name)
    prior = StepPrior.of(spec)
    scene = sample(spec, 20_000, generator=generator)
    positions = scene.position[:, 0][scene.count == 1]  # alone, nothing is in the way
    assert positions.std(0).tolist() == pytest.approx(prior.position_std, rel=0.03)
    if prior.azimuth is None:
        assert not spec.camera.moves
    else:
        assert float(scene.azimuth.std()) == pytest.approx(prior.azimuth[1], rel=0.03)


def test_density_of_one_object_integrates_to_one() -> None:
    """Over position and yaw, on a grid that reaches seven deviations."""
    prior = StepPrior.of(SceneSpec.load("objects"), count=(0.0, 1.0))
    steps = torch.linspace(-1.5, 1.5, 301)
    x, y = torch.meshgrid(steps, steps, indexing="ij")
    scene = Scene.empty(x.numel(), 1)
    scene.presence[:] = True
    scene.position[:, 0] = torch.stack([x, y], -1).view(-1, 2)
    area = (3 / 300) ** 2 * 2 * math.pi
    total = prior.log_prob(scene).double().exp().sum() * area * prior.classes
    assert float(total) == pytest.approx(1.0, rel=1e-4)


def test_yaws_on_the_real_line_have_a_density_of_their_own() -> None:
    """That integrates to one: else a yaw that nothing shows would spread for its own sake."""
    prior = StepPrior.of(SceneSpec.load("objects"), wrapped=False)
    yaw = torch.linspace(-15, 15, 3001)
    density = prior.log_pose(torch.zeros(2), yaw) - prior.log_pose(torch.zeros(2), yaw[1500])
    assert prior.yaw_std is not None
    total = density.double().exp().sum() * 0.01 / (prior.yaw_std * math.sqrt(2 * math.pi))
    assert float(total) == pytest.approx(1.0, rel=1e-4)


def test_what_absent_slots_hold_reaches_neither_value_nor_gradient() -> None:
    prior = StepPrior.of(SceneSpec.load("tabletop"))
    scene = Scene.empty(1, 3)
    scene.presence[:, 0] = True
    clean = prior.log_prob(scene)
    position = scene.position.clone()
    position[:, 1:] = math.nan
    position.requires_grad_()
    spoilt = prior.log_prob(
        Scene(scene.presence, scene.identity, position, scene.yaw, scene.azimuth)
    )
    torch.testing.assert_close(spoilt, clean)
    spoilt.sum().backward()
    assert position.grad is not None
    assert bool(position.grad.isfinite().all())

"""Scenes drawn from the prior, held against the density that it claims to have."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats

from renderer import Scene, SceneSpec
from renderer.placement import overlaps
from renderer.prior import log_prob, sample

World = dict[str, Any]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def crowded(world: World) -> SceneSpec:
    """Two classes on a small place: about half of all random pairs overlap."""
    world["objects"][0]["size"] = [0.12, 0.05, 0.1]
    world["placement"]["extent"] = [0.2, 0.15]
    world["count"] = {"max": 2, "probabilities": [0.2, 0.3, 0.5]}
    return SceneSpec.build(world)


def thrown(spec: SceneSpec, n: int, count: int, reach: float) -> tuple[Scene, float]:
    """Scenes thrown uniformly, positions up to `reach` times the extent; their log density."""
    generator, classes = seeded(5), len(spec.objects)
    scene = Scene.empty(n, spec.count.max)
    scene.presence[:, :count] = True
    scene.identity[:] = torch.randint(classes, scene.identity.shape, generator=generator)
    extent = reach * torch.tensor(spec.placement.extent)
    scene.position[:] = (2 * torch.rand(scene.position.shape, generator=generator) - 1) * extent
    scene.yaw[:] = (2 * torch.rand(scene.yaw.shape, generator=generator) - 1) * math.pi
    least, greatest = spec.camera.azimuth_range
    span = (greatest - least) * reach
    scene.azimuth[:] = (least + greatest - span) / 2 + span * torch.rand(n, generator=generator)
    area = float(4 * extent.prod()) * 2 * math.pi * classes
    return scene, -count * math.log(area) - math.log(span)


def test_same_seed_same_scenes() -> None:
    spec = SceneSpec.load("tabletop")
    first, again, other = (sample(spec, 50, generator=seeded(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.tensors(), again.tensors(), strict=True))
    assert not torch.equal(first.azimuth, other.azimuth)


def test_counts_come_as_often_as_the_spec_says(crowded: SceneSpec) -> None:
    counts = sample(crowded, 5000, generator=seeded()).count
    expected = 5000 * torch.tensor(crowded.count.distribution)
    assert stats.chisquare(counts.bincount(), expected).pvalue > 1e-3


def test_one_object_is_uniform_in_everything(world: World) -> None:
    world["count"] = {"max": 1, "probabilities": [0, 1]}
    spec = SceneSpec.build(world)
    scene = sample(spec, 4000, generator=seeded())
    assert stats.chisquare(scene.identity[:, 0].bincount()).pvalue > 1e-3
    least, greatest = spec.camera.azimuth_range
    for values, low, high in [
        (scene.position[:, 0, 0], -0.4, 0.4),
        (scene.position[:, 0, 1], -0.4, 0.4),
        (scene.yaw[:, 0], -math.pi, math.pi),
        (scene.azimuth, least, greatest),
    ]:
        assert stats.kstest(values.numpy(), "uniform", (low, high - low)).pvalue > 1e-3


def test_identities_follow_the_density_where_large_things_fit_less(crowded: SceneSpec) -> None:
    # Drawn anew as a whole, pairs of things that leave more room come more often; so they do in
    # the density: thrown scenes that it allows have the same mix of classes.
    scene = sample(crowded, 6000, generator=seeded())
    drawn = scene.identity[scene.count == 2].sum(1).bincount()
    candidates, _ = thrown(crowded, 20000, 2, 1.0)
    allowed = candidates.identity[log_prob(crowded, candidates).isfinite()].sum(1).bincount()
    assert stats.chi2_contingency(torch.stack([drawn, allowed])).pvalue > 1e-3


@pytest.mark.parametrize("name", ["objects", "tabletop"])
def test_what_is_drawn_is_possible(name: str) -> None:
    spec = SceneSpec.load(name)
    scene = sample(spec, 500, generator=seeded())
    assert log_prob(spec, scene).isfinite().all()
    things = (scene.presence, scene.identity, scene.position, scene.yaw)
    assert not overlaps(spec.footprints, *things).any()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_density_integrates_to_the_probability_of_the_count(crowded: SceneSpec, count: int) -> None:
    n = 40_000
    scene, log_thrown = thrown(crowded, n, count, 1.1)
    weights = (log_prob(crowded, scene) - log_thrown).exp()
    # The acceptance in the density is an estimate itself, from 100,000 throws.
    accepted = crowded.acceptances[count]
    error = math.hypot(
        float(weights.std()) / math.sqrt(n),
        crowded.count.distribution[count] * math.sqrt((1 - accepted) / accepted / 100_000),
    )
    assert accepted > 0.3
    assert float(weights.mean()) == pytest.approx(crowded.count.distribution[count], abs=4 * error)


def test_density_of_one_object_by_hand(crowded: SceneSpec) -> None:
    scene = Scene.empty(1, 2)
    scene.presence[0, 0] = True
    azimuth = math.radians(80)
    by_hand = math.log(0.3 / (2 * (0.4 * 0.3) * 2 * math.pi * azimuth))
    assert float(log_prob(crowded, scene)) == pytest.approx(by_hand, abs=1e-5)


def test_all_different_when_nothing_repeats(world: World) -> None:
    world["objects"].append({"name": "can", "shape": "cylinder", "size": [0.05, 0.1]})
    world["objects"][2]["colour"] = [1, 1, 1]
    world["placement"] |= {"repeats": False, "no_overlap": False}
    world["count"] = {"max": 2, "probabilities": [0, 0, 1]}
    spec = SceneSpec.build(world)
    scene = sample(spec, 3000, generator=seeded())
    pairs = (scene.identity * torch.tensor([3, 1])).sum(1).bincount(minlength=9)
    assert pairs[[0, 4, 8]].tolist() == [0, 0, 0]
    assert stats.chisquare(pairs[[1, 2, 3, 5, 6, 7]]).pvalue > 1e-3
    volume = (0.8**2 * 2 * math.pi) ** 2 * math.radians(80)
    expected = torch.full((3000,), -math.log(6 * volume))
    assert torch.allclose(log_prob(spec, scene), expected, atol=1e-4)
    scene.identity[:] = 1
    assert (log_prob(spec, scene) == -math.inf).all()


def test_slots_are_exchangeable() -> None:
    spec = SceneSpec.load("tabletop")
    scene = sample(spec, 200, generator=seeded())
    scene = scene[scene.count == 3]
    for order in ([1, 2, 0], [2, 1, 0]):
        assert torch.equal(log_prob(spec, scene.permute_slots(order)), log_prob(spec, scene))


def test_what_stands_behind_the_last_object_does_not_matter(crowded: SceneSpec) -> None:
    scene = sample(crowded, 100, generator=seeded())
    before = log_prob(crowded, scene)
    scene.identity[~scene.presence] = 99
    scene.position[~scene.presence] = 1e6
    assert torch.equal(log_prob(crowded, scene), before)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("presence", [[False, True]]),  # not unary
        ("identity", [[0, 2]]),
        ("identity", [[-1, 0]]),
        ("position", [[[0.19, 0.0], [0.19, 0.01]]]),  # in each other
        ("position", [[[0.201, 0.0], [-0.19, 0.0]]]),
        ("position", [[[0.19, 0.0], [-0.19, -0.151]]]),
        ("azimuth", [math.radians(40.1)]),
        ("azimuth", [math.radians(-40.1)]),
    ],
)
def test_what_cannot_be_has_no_density(crowded: SceneSpec, field: str, value: Any) -> None:
    scene = Scene.empty(1, 2)
    scene.presence[:] = True
    scene.position[:] = torch.tensor([[0.19, 0.0], [-0.19, 0.0]])
    assert log_prob(crowded, scene).isfinite()
    getattr(scene, field)[:] = torch.tensor(value)
    assert float(log_prob(crowded, scene)) == -math.inf


def test_more_objects_than_the_spec_has_no_density(crowded: SceneSpec) -> None:
    scene = Scene.empty(1, 3)
    scene.presence[:] = True
    scene.position[:] = torch.tensor([[0.19, 0.14], [-0.19, 0.14], [0.0, -0.14]])
    assert float(log_prob(crowded, scene)) == -math.inf


def test_fixed_camera_stands_where_it_stands() -> None:
    spec = SceneSpec.load("tabletop-fixed")
    scene = sample(spec, 20, generator=seeded())
    assert (scene.azimuth == 0).all() and log_prob(spec, scene).isfinite().all()
    scene.azimuth[:] = 0.01
    assert (log_prob(spec, scene) == -math.inf).all()

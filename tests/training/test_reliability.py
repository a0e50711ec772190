"""Answers that are as sure as they should be pass; surer ones, and vaguer ones, do not."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from inference.estimate import Estimate
from renderer.scene import Scene
from renderer.spec import SceneSpec
from training.dreams import generator_for
from training.reliability import (
    c2st,
    contraction,
    coverage,
    draw_ranks,
    expected_calibration_error,
    gaussian_coverage,
    quantiles,
    rank_statistics,
)

N = 1500


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("tabletop")


def answers(spec: SceneSpec, true_std: float = 1.0) -> tuple[Estimate, Scene]:
    """Of N scenes with a cup and a plate each; errors are `true_std` times what is claimed."""
    generator = generator_for("answers")
    true = Scene.empty(N, 3)
    true.presence[:, :2] = True
    true.identity[:, 1] = 2
    true.position[:, 1] = torch.tensor([0.2, 0.2])
    true.yaw[:] = 3.1  # errors reach over the edge of the circle
    covariance = torch.tensor([[4e-6, 2e-6], [2e-6, 9e-6]])
    root = torch.linalg.cholesky(covariance)

    def noise(*shape: int) -> Tensor:
        return true_std * torch.randn(*shape, generator=generator)

    scene = Scene(
        true.presence,
        true.identity,
        true.position + noise(N, 3, 2) @ root.T,
        true.yaw + 0.05 * noise(N, 3),
        true.azimuth + 0.001 * noise(N),
    )
    orders = torch.tensor(spec.symmetry_orders)[true.identity]
    estimate = Estimate(
        scene,
        torch.tensor([0.0, 0.0, 1.0, 0.0]).expand(N, 4),
        torch.tensor([1.0, 1.0, 0.0]).expand(N, 3),
        torch.nn.functional.one_hot(true.identity, 3).float(),
        covariance.expand(N, 3, 2, 2),
        torch.where(orders == 0, math.inf, 0.05),
        torch.full((N,), 0.001),
    )
    return estimate, true


@pytest.mark.parametrize(("true_std", "passes"), [(1.0, True), (1.3, False), (0.7, False)])
def test_only_honest_spreads_pass(spec: SceneSpec, true_std: float, passes: bool) -> None:
    estimate, true = answers(spec, true_std)
    for of in (coverage, gaussian_coverage):
        for given in of(spec, estimate, true).values():
            off = max(abs(float(share or 0) - float(level)) for level, share in given.items())
            assert (off < 0.04) == passes
    for name, test in rank_statistics(
        spec, estimate, true, generator=generator_for("ranks")
    ).items():
        assert test is not None
        assert test["n"] == (2 * N if name in "xy" else N)
        assert sum(test["histogram"]) == test["n"]
        assert (test["ks_p"] > 1e-3) == passes
        assert (test["c2st"] < 0.53) == passes


def test_quantiles_know_the_side(spec: SceneSpec) -> None:
    estimate, true = answers(spec)
    scene = replace(estimate.scene, position=true.position + 0.01, azimuth=true.azimuth - 0.01)
    below = quantiles(spec, replace(estimate, scene=scene), true)
    assert (below["x"] < 1e-3).all(), "the truth lies far below what is said"
    assert (below["azimuth"] > 0.999).all()


def test_a_vague_posterior_does_not_contract(spec: SceneSpec) -> None:
    estimate, true = answers(spec)
    sharp = contraction(spec, estimate, true)
    assert all(value is not None and value > 0.99 for value in sharp.values())
    x, y = spec.placement.extent
    vague = replace(
        estimate,
        position_covariance=torch.diag(torch.tensor([x * x, y * y]) / 3).expand(N, 3, 2, 2),
        yaw_std=torch.full((N, 3), 9.0),
        azimuth_std=torch.full((N,), math.radians(80) / math.sqrt(12)),
    )
    for value in contraction(spec, vague, true).values():
        assert value == pytest.approx(0.0, abs=1e-4)


def test_ranks_of_a_shifted_truth_are_told_from_uniform_ones() -> None:
    generator = generator_for("ranks")
    even, low = torch.rand(2, 2000, generator=generator)
    assert c2st(draw_ranks(even, generator), generator) < 0.53
    assert c2st(draw_ranks(low.square(), generator), generator) > 0.6


def test_without_answers_there_is_no_calibration_error() -> None:
    assert expected_calibration_error(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) is None

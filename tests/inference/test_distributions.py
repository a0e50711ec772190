import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal

from inference.distributions import (
    LOG_2PI,
    PlaneGaussian,
    VonMises,
    count_probabilities,
    symmetric_yaw,
    unary_steps,
    wrap,
)

CONCENTRATIONS = (0.0, 1e-3, 1.0, 30.0, 1e5)


def matrix(density: PlaneGaussian) -> Tensor:
    """The Cholesky factor written out, `[..., 2, 2]`."""
    l00, l10, l11 = density.scale_tril.unbind(-1)
    return torch.stack([l00, torch.zeros_like(l00), l10, l11], dim=-1).unflatten(-1, (2, 2))


def circle(points: int) -> Tensor:
    return (torch.arange(points, dtype=torch.float64) + 0.5) / points * 2 * math.pi - math.pi


def test_plane_gaussian_is_the_multivariate_normal(generator: Generator) -> None:
    mean = torch.randn(7, 2, dtype=torch.float64, generator=generator)
    scale = torch.randn(7, 3, dtype=torch.float64, generator=generator)
    scale = torch.stack([scale[:, 0].exp(), scale[:, 1], scale[:, 2].exp()], dim=-1)
    density = PlaneGaussian(mean, scale)
    reference = MultivariateNormal(mean, scale_tril=matrix(density))
    points = torch.randn(100, 7, 2, dtype=torch.float64, generator=generator) * 3
    torch.testing.assert_close(density.log_prob(points), reference.log_prob(points))
    torch.testing.assert_close(density.covariance(), reference.covariance_matrix)


def test_plane_gaussian_integrates_to_one() -> None:
    density = PlaneGaussian(torch.tensor([0.1, -0.2]), torch.tensor([0.05, -0.04, 0.03]))
    axis = torch.arange(-0.7, 0.7, 0.01)
    points = torch.cartesian_prod(axis, axis)
    assert float(density.log_prob(points).exp().sum() * 0.01**2) == pytest.approx(1, abs=1e-5)


def test_plane_gaussian_samples_have_its_mean_and_covariance(generator: Generator) -> None:
    mean, scale = torch.tensor([0.1, -0.2]), torch.tensor([0.05, -0.04, 0.03])
    n = 40_000
    # Parameters that n points share, once written out and once broadcast.
    for shared in (
        PlaneGaussian(mean.expand(n, 2), scale.expand(n, 3)),
        PlaneGaussian(mean, scale.expand(n, 3)),
    ):
        points = shared.sample(generator)
        assert points.shape == (n, 2)
        covariance = PlaneGaussian(mean, scale).covariance()
        error = (points.mean(0) - mean) / (covariance.diagonal() / n).sqrt()
        assert error.abs().max() < 4
        torch.testing.assert_close(points.T.cov(), covariance, rtol=0.05, atol=2e-5)


def test_plane_gaussian_samples_carry_gradients_to_the_parameters() -> None:
    mean = torch.tensor([[0.1, -0.2]], requires_grad=True)
    scale = torch.tensor([[0.05, -0.04, 0.03]], requires_grad=True)
    noise = torch.empty(2, 1).normal_(generator=Generator().manual_seed(1))[:, 0]
    x, y = PlaneGaussian(mean, scale).sample(Generator().manual_seed(1))[0]
    dx = torch.autograd.grad(x, [mean, scale], retain_graph=True)
    dy = torch.autograd.grad(y, [mean, scale])
    torch.testing.assert_close(dx, (torch.tensor([[1.0, 0]]), torch.tensor([[noise[0], 0, 0]])))
    torch.testing.assert_close(dy, (torch.tensor([[0, 1.0]]), torch.tensor([[0, *noise]])))


@pytest.mark.parametrize("concentration", [1e-3, 1.0, 30.0])
def test_von_mises_is_the_von_mises(concentration: float) -> None:
    angles, loc = circle(500) * 3, torch.tensor(0.7, dtype=torch.float64)
    found = VonMises(loc, torch.tensor(concentration, dtype=torch.float64)).log_prob(angles)
    by_scipy = scipy.stats.vonmises.logpdf(angles.numpy(), concentration, loc=0.7)
    torch.testing.assert_close(found, torch.from_numpy(by_scipy), rtol=1e-9, atol=1e-9)
    by_torch = torch.distributions.VonMises(loc, torch.tensor(concentration).double())
    # torch approximates the Bessel function to about seven digits
    torch.testing.assert_close(found, by_torch.log_prob(angles), rtol=1e-6, atol=1e-6)


def test_sharp_von_mises_is_the_normal_in_single_precision() -> None:
    concentration = torch.tensor(1e5)
    angles = torch.linspace(-4, 4, 1001) / concentration.sqrt()
    found = VonMises(torch.tensor(0.0), concentration).log_prob(angles)
    normal = torch.distributions.Normal(0.0, concentration.double().rsqrt())
    torch.testing.assert_close(found.double(), normal.log_prob(angles.double()), rtol=0, atol=2e-4)

    exact = VonMises(torch.tensor(0.0), concentration.double()).log_prob(angles.double())
    assert (found - exact).abs().max() < 1e-5
    # The textbook form loses what distinguishes the angles.
    bessel = torch.special.i0e(concentration).log() + concentration
    textbook = concentration * angles.cos() - bessel - LOG_2PI
    assert (textbook - exact).abs().max() > 2e-3


@pytest.mark.parametrize("concentration", [1e2, 1e4, 1e6])
def test_sharp_von_mises_has_exact_gradients_in_single_precision(concentration: float) -> None:
    gradients = []
    for dtype in (torch.float32, torch.float64):
        loc = torch.tensor(0.0, dtype=dtype, requires_grad=True)
        kappa = torch.tensor(concentration, dtype=dtype, requires_grad=True)
        angle = torch.tensor(0.5, dtype=dtype) / math.sqrt(concentration)
        VonMises(loc, kappa).log_prob(angle).backward()
        assert loc.grad is not None and kappa.grad is not None
        gradients.append((float(loc.grad), float(kappa.grad)))
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-3)


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_von_mises_integrates_to_one(concentration: float) -> None:
    angles = circle(20_000)
    density = VonMises(torch.tensor(2.9).double(), torch.tensor(concentration).double())
    mass = density.log_prob(angles).exp().sum() * 2 * math.pi / len(angles)
    assert float(mass) == pytest.approx(1, abs=1e-9)


@pytest.mark.timeout(30)  # a rejection sampler that never accepts does not fail, it hangs
@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_von_mises_samples_follow_the_density(concentration: float, generator: Generator) -> None:
    loc, n = 2.9, 20_000  # near the end of the circle: samples wrap
    density = VonMises(torch.full((n,), loc), torch.full((n,), concentration))
    angles = density.sample(generator)
    assert angles.abs().max() <= math.pi + 1e-6
    offset = wrap(angles.double() - density.loc.double()).numpy()
    if concentration == 0:
        reference = scipy.stats.uniform(-math.pi, 2 * math.pi)
    elif concentration > 1e4:
        reference = scipy.stats.norm(0, concentration**-0.5)
    else:
        reference = scipy.stats.vonmises(concentration)
    assert scipy.stats.kstest(offset, reference.cdf).pvalue > 1e-3


@pytest.mark.timeout(30)
def test_von_mises_samples_of_mixed_concentrations_keep_their_places(generator: Generator) -> None:
    loc = torch.tensor([-2.0, 0.5, 3.0])
    angles = VonMises(loc, torch.tensor([[1e5]]).expand(400, 3)).sample(generator)
    assert wrap(angles - loc).abs().max() < 0.02
    broken = VonMises(loc, torch.tensor([1e5, math.nan, 0.0])).sample(generator)
    assert broken.isfinite().tolist() == [True, False, True]


@pytest.mark.parametrize("concentration", [1e-3, 1.0, 30.0, 1e5, 1e6])
def test_von_mises_std(concentration: float) -> None:
    std = VonMises(torch.tensor(0.4), torch.tensor(concentration)).std()
    assert std.dtype == torch.float32
    if concentration < 1e5:
        expected = math.sqrt(
            -2
            * math.log(
                abs(
                    scipy.stats.vonmises.expect(
                        lambda angle: math.cos(angle),
                        args=(concentration,),
                        lb=-math.pi,
                        ub=math.pi,
                    )
                )
            )
        )
    else:
        expected = concentration**-0.5
    assert float(std) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("order", [0, 1, 2, 4])
def test_symmetric_yaw_is_a_density_over_yaw_with_the_symmetry(order: int) -> None:
    turned = symmetric_yaw(
        VonMises(torch.tensor(0.8).double(), torch.tensor(5.0).double()), torch.tensor(order)
    )
    yaw = circle(4000)
    density = turned.log_prob(order * yaw).exp()
    assert float(density.sum() * 2 * math.pi / len(yaw)) == pytest.approx(1, abs=1e-9)
    if order == 0:
        torch.testing.assert_close(density, torch.full_like(density, 1 / (2 * math.pi)))
    else:
        again = turned.log_prob(order * (yaw + 2 * math.pi / order)).exp()
        torch.testing.assert_close(again, density)
        assert density.max() > 10 * density.min()


def test_wrap() -> None:
    angles = torch.linspace(-20, 20, 2001, dtype=torch.float64)
    wrapped = wrap(angles)
    assert wrapped.min() >= -math.pi and wrapped.max() < math.pi
    turns = (angles - wrapped) / (2 * math.pi)
    torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-12)
    torch.testing.assert_close(wrap(torch.tensor([0.0, 3.0, -3.0])), torch.tensor([0.0, 3, -3]))


def test_count_probabilities_agree_with_the_unary_code(generator: Generator) -> None:
    logits = torch.randn(5, 3, generator=generator) * 8  # far out in the tails as well
    probabilities = count_probabilities(logits)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(5))
    for n in range(4):
        log_prob = unary_steps(logits, torch.full((5,), n)).sum(-1)
        torch.testing.assert_close(probabilities[:, n], log_prob.exp(), rtol=1e-4, atol=0)


def test_unary_code_recovers_a_distribution_over_counts() -> None:
    # Appendix B: p(z_i = 1 | z_{i-1} = 1) = mu_{>= i} / mu_{>= i-1} makes the count follow p(n).
    p = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    at_least = p.flip(0).cumsum(0).flip(0)
    logits = (at_least[1:] / at_least[:-1]).logit()
    torch.testing.assert_close(count_probabilities(logits), p)


@pytest.mark.parametrize("concentration", [0.0, 0.02, 0.8, 7.0, 300.0, 8000.0])
def test_an_attached_angle_keeps_its_quantile(concentration: float) -> None:
    """The path-wise derivative in the concentration, against differences of scipy's quantiles."""
    quantile = np.array([0.03, 0.2, 0.5, 0.6, 0.97])
    step = 1e-3 * max(concentration, 1.0)
    least, greatest = max(concentration - step, 1e-6), concentration + step
    at = (least, max(concentration, 1e-6), greatest)
    low, middle, high = (scipy.stats.vonmises.ppf(quantile, value) for value in at)
    expected = (high - low) / (greatest - least)
    parameter = torch.full((5,), concentration, dtype=torch.float64, requires_grad=True)
    loc = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    value = VonMises(loc, parameter).attach(torch.from_numpy(middle))
    assert value.detach().numpy() == pytest.approx(middle)
    gradients = torch.autograd.grad(value.sum(), (loc, parameter))
    assert gradients[0].tolist() == [1.0] * 5
    assert gradients[1].numpy() == pytest.approx(expected, rel=0.02, abs=1e-7)


def test_an_attached_point_moves_with_its_gaussian(generator: torch.Generator) -> None:
    """As the sample itself would with the same noise."""
    mean = torch.randn(6, 2, generator=generator, requires_grad=True)
    scale = torch.tensor([0.3, -0.2, 0.5]).expand(6, 3).clone().requires_grad_()
    gaussian = PlaneGaussian(mean, scale)
    drawn = gaussian.sample(generator)
    attached = gaussian.attach(drawn.detach())
    torch.testing.assert_close(attached, drawn)
    pull = torch.randn(6, 2, generator=generator)
    for ours, theirs in zip(
        torch.autograd.grad((attached * pull).sum(), (mean, scale)),
        torch.autograd.grad((drawn * pull).sum(), (mean, scale)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)

"""The densities of the posterior: Gaussians on the table, circular densities, the unary code.

All are functions of tensors that broadcast; parameters live in small named tuples.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
QUADRATURE = 48  # points


class PlaneGaussian(NamedTuple):
    """A Gaussian over points of the table plane with covariance L L^T."""

    mean: Tensor  # [..., 2] m
    scale_tril: Tensor  # [..., 3]: L00, L10, L11, in m; L00 and L11 positive

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of points `[..., 2]` m."""
        l00, l10, l11 = self.scale_tril.unbind(-1)
        x, y = (value - self.mean).unbind(-1)
        u = x / l00
        v = (y - l10 * u) / l11
        return -0.5 * (u * u + v * v) - l00.log() - l11.log() - LOG_2PI

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One point of each, `[..., 2]` m; differentiable in the parameters."""
        l00, l10, l11 = self.scale_tril.unbind(-1)
        # Of the broadcast shape: each point has its own noise, also where parameters are shared.
        shape = torch.broadcast_shapes(self.mean.shape[:-1], l00.shape)
        u, v = self.mean.new_empty(2, *shape).normal_(generator=generator)
        return self.mean + torch.stack([l00 * u, l10 * u + l11 * v], dim=-1)

    def attach(self, value: Tensor) -> Tensor:
        """The same points `[..., 2]` m, differentiable in the parameters as if drawn from them.

        The path-wise derivative: with the noise that led to a point kept, it moves with the
        parameters (appendix A.1).
        """
        with torch.no_grad():
            l00, l10, l11 = self.scale_tril.unbind(-1)
            x, y = (value - self.mean).unbind(-1)
            u = x / l00
            v = (y - l10 * u) / l11
        l00, l10, l11 = self.scale_tril.unbind(-1)
        return self.mean + torch.stack([l00 * u, l10 * u + l11 * v], dim=-1)

    def covariance(self) -> Tensor:
        """`[..., 2, 2]` m^2."""
        l00, l10, l11 = self.scale_tril.unbind(-1)
        xy = l00 * l10
        rows = [l00 * l00, xy, xy, l10 * l10 + l11 * l11]
        return torch.stack(rows, dim=-1).unflatten(-1, (2, 2))


class Gaussian(NamedTuple):
    """A Gaussian over the real line."""

    mean: Tensor  # [...]
    std: Tensor  # [...], positive

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of numbers `[...]`."""
        return -0.5 * ((value - self.mean) / self.std).square() - self.std.log() - 0.5 * LOG_2PI

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One number of each, `[...]`; differentiable in the parameters."""
        return self.mean + self.std * torch.empty_like(self.mean).normal_(generator=generator)

    def divergence(self, other: Gaussian) -> Tensor:
        """Kullback-Leibler divergence from `other` to this, nats: `[...]`."""
        ratio = self.std / other.std
        offset = (self.mean - other.mean) / other.std
        return 0.5 * (ratio.square() + offset.square() - 1) - ratio.log()


class VonMises(NamedTuple):
    """The von Mises density on the circle; concentration 0 is uniform."""

    loc: Tensor  # [...] rad
    concentration: Tensor  # [...]

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of angles (rad), exact also at high concentration.

        Written with cos d - 1 = -2 sin^2(d / 2): in single precision the left side has no digits
        left at the concentrations that a sharp camera angle needs.
        """
        half = torch.sin((value - self.loc) / 2)
        # In doubles for its gradient, i1e - i0e, whose digits cancel in the same way.
        normaliser = torch.special.i0e(self.concentration.double()).log().to(half.dtype)
        return -2 * self.concentration * half * half - normaliser - LOG_2PI

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One angle of each, rad in [-pi, pi). Best and Fisher's rejection, in doubles."""
        loc, concentration = torch.broadcast_tensors(self.loc.double(), self.concentration.double())
        # At exactly 0 the envelope has no limit to compute with; 1e-9 is as uniform.
        flat = concentration.flatten().clamp_min(1e-9)
        tau = 1 + (1 + 4 * flat * flat).sqrt()
        rho = (tau - (2 * tau).sqrt()) / (2 * flat)
        # Below 1e-4 the formula cancels; its limit there is 1 / concentration.
        r = torch.where(flat < 1e-4, 1 / flat, (1 + rho * rho) / (2 * rho))
        angle = torch.zeros_like(flat)
        todo = torch.arange(len(flat), device=flat.device)
        while len(todo):
            u = torch.rand(3, len(todo), dtype=flat.dtype, device=flat.device, generator=generator)
            z = torch.cos(math.pi * u[0])
            f = (1 + r[todo] * z) / (r[todo] + z)
            c = flat[todo] * (r[todo] - f)
            # What to refuse, not what to accept: NaN parameters give NaN instead of no end.
            refuse = (c * (2 - c) - u[1] <= 0) & ((c / u[1]).log() + 1 - c < 0)
            side = torch.where(u[2] > 0.5, 1.0, -1.0)
            angle[todo] = side * f.clamp(-1, 1).acos()
            todo = todo[refuse]
        return wrap(angle.view_as(concentration) + loc).to(self.loc.dtype)

    def attach(self, value: Tensor) -> Tensor:
        """The same angles (rad), differentiable in the parameters as if drawn from them.

        Implicit reparameterisation (Figurnov et al., 2018): at a fixed quantile an angle moves
        with `loc`, and with the concentration as `_spread` says.
        """
        with torch.no_grad():
            value, loc, concentration = torch.broadcast_tensors(value, *self)
            slope = _spread(wrap(value - loc).double(), concentration.double()).to(loc.dtype)
        moved = self.loc - self.loc.detach()
        return value + moved + slope * (self.concentration - self.concentration.detach())

    def std(self) -> Tensor:
        """Circular standard deviation, rad: sqrt(-2 log R), R the mean resultant length."""
        return resultant_std(self.resultant()).to(self.concentration.dtype)

    def resultant(self) -> Tensor:
        """Mean resultant length, in [0, 1).

        In doubles: 1 - R is 1 / (2 concentration), which single precision does not hold.
        """
        return resultant_of(self.concentration.double())


def _spread(angle: Tensor, concentration: Tensor) -> Tensor:
    """How far von Mises angles around 0 move with the concentration, at a fixed quantile; float64.

    Minus the derivative of the distribution function over the density. The former is the integral
    of (cos t - A) p(t) from the angle outwards, A the mean of cos t; the latter falls there, so
    that nothing overflows. By Gauss-Legendre quadrature where the density is worth mentioning.
    """
    nodes, weights = (torch.from_numpy(value) for value in leggauss(QUADRATURE))
    start = angle.abs()
    end = torch.minimum(torch.full_like(start, math.pi), start + 9 / concentration.sqrt())
    half = (end - start)[..., None] / 2
    t = start[..., None] + half * (1 + nodes.to(start))
    # cos t - cos a and cos t - A without cancelling: 1 - cos is 2 sin^2 of half the angle.
    versine = 2 * torch.sin(t / 2).square()
    base = 2 * torch.sin(start / 2).square()[..., None]
    k = concentration[..., None]
    rest = (1 - torch.special.i1e(k) / torch.special.i0e(k)) - versine
    return angle.sign() * (half * weights.to(start) * rest * torch.exp(k * (base - versine))).sum(
        -1
    )


# The resultant in powers of 1 / concentration, the asymptotic series of the two Bessel functions
# divided (Abramowitz and Stegun, 9.7.1): from LARGE on to 3e-9 of what it is short of 1.
LARGE = 15.0
ASYMPTOTIC = (
    *(1, -1 / 2, -1 / 8, -1 / 8, -25 / 128, -13 / 32, -1073 / 1024, -103 / 32),
    *(-375733 / 32768, -23797 / 512, -55384775 / 262144, -2180461 / 2048),
)
FRACTION = 16  # levels of the continued fraction below LARGE, as exact there


def resultant_of(concentration: Tensor) -> Tensor:
    """I1 / I0 of concentrations `[...]` float64, the modified Bessel functions."""
    if not torch.compiler.is_exporting():
        return torch.special.i1e(concentration) / torch.special.i0e(concentration)
    return elementary_resultant(concentration)


def elementary_resultant(concentration: Tensor) -> Tensor:
    """`resultant_of` without Bessel functions, which not all that runs a network has."""
    inverse = 1 / concentration.clamp_min(LARGE)
    large = torch.full_like(inverse, ASYMPTOTIC[-1])
    for coefficient in reversed(ASYMPTOTIC[:-1]):
        large = coefficient + large * inverse
    k = concentration.clamp(1e-9, LARGE)
    # I(n + 1) / I(n) from that of the next order (Amos 1974, who also bounds the last).
    double, ratio = 2 / k, k / (FRACTION + 0.5 + (k * k + (FRACTION + 1.5) ** 2).sqrt())
    for order in range(FRACTION, 0, -1):
        ratio = 1 / (order * double + ratio)
    return torch.where(concentration > LARGE, large, ratio)


def resultant_std(resultant: Tensor) -> Tensor:
    """Circular standard deviation (rad) that goes with a mean resultant length."""
    return (-2 * resultant.clamp(1e-9, 1 - 1e-12).log()).clamp_min(0).sqrt()


def wrap(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def symmetric_yaw(density: VonMises, order: Tensor) -> VonMises:
    """The density of `order` times the yaw; uniform for order 0 (no turn shows).

    An n-fold symmetric object looks the same after 2 pi / n, so its yaw is known only up to that.
    With phi = n yaw ~ `density`, f(yaw) = density(n yaw): n branches, each with 1/n of the mass.
    """
    return VonMises(density.loc, torch.where(order == 0, 0.0, density.concentration))


def canonical_yaw(yaw: Tensor, order: Tensor) -> Tensor:
    """Of all yaws (rad) that look alike, the one nearest to 0.

    Args:
        yaw: `[...]` rad.
        order: `[...]` int64, symmetry order of the object.
    """
    return torch.where(order == 0, 0.0, wrap(order * yaw) / order.clamp_min(1))


def unary_steps(presence_logits: Tensor, count: Tensor) -> Tensor:
    """Log probability of each step's z_pres under the unary code (section 2.1, appendix B).

    Args:
        presence_logits: `[..., K]`, of z_pres at each step, all steps before being present.
        count: `[...]` int64.

    Returns:
        `[..., K]`, 0 behind the first absent step; the sum is log p(count).
    """
    log_on = torch.nn.functional.logsigmoid(presence_logits)
    log_off = torch.nn.functional.logsigmoid(-presence_logits)
    step = torch.arange(presence_logits.shape[-1], device=count.device)
    stop = torch.where(step == count[..., None], log_off, 0.0)
    return torch.where(step < count[..., None], log_on, stop)


def count_probabilities(presence_logits: Tensor) -> Tensor:
    """p(n) for n = 0 to K, `[..., K + 1]`, that presence logits `[..., K]` of all steps imply."""
    certain = torch.ones_like(presence_logits[..., :1])
    at_least = torch.cat([certain, at_least_probabilities(presence_logits)], dim=-1)
    return at_least * torch.cat([torch.sigmoid(-presence_logits), certain], dim=-1)


def at_least_probabilities(presence_logits: Tensor) -> Tensor:
    """p(n > k) for k = 0 to K - 1, `[..., K]`, that presence logits `[..., K]` imply."""
    return torch.nn.functional.logsigmoid(presence_logits).cumsum(-1).exp()

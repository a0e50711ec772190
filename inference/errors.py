"""What the error of a number is like: the law behind every standard deviation that is given away.

A network's spread, or the curvature of a likelihood, is the width of a Gaussian. Errors have longer
tails, and a cup whose handle is barely seen may be turned the other way round. The law here is a
normal with a share of a wider one and a little of a far wider one (Tukey's contaminated normal),
and for angles a share that is about half a turn off, or anything. Its distribution function is in
closed form. Its quantiles are the intervals that are given away; `std` is half of the one that
holds 68 %, as physicists quote it: the moment, with one flip in a thousand, would say nothing of
the others.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = (0.5, 0.8, 0.9, 0.95)  # of the intervals that are given away, and measured
ONE_SIGMA = math.erf(math.sqrt(0.5))  # of a normal's mass
FULL = math.pi  # rad, the farthest that an angle can be wrong
WRAPS = 2  # turns on both sides from which a wide normal comes around again
WIDEST = 1.5  # std over FULL: as good as uniform, and no wider than WRAPS hold
LEAST = 1e-12  # std of what is known exactly
NEWTON = 60  # steps at most; a handful do
UNROLLED = 12  # steps where their number cannot depend on how far they are
GRID, FINEST = 160, 0.02  # points at which a quantile is looked for, the first in units of the core


class ErrorLaw(NamedTuple):
    """Laws of errors, all tensors of one shape `[...]`, widths in the unit of the error."""

    core: Tensor  # std of the normal, positive
    share: Tensor  # of the wider normal
    factor: Tensor  # how many times wider, at least 1
    rare: Tensor  # share of the widest normal
    far: Tensor  # how many times wider than the wider one, at least 1
    lost: Tensor  # probability that an angle is about half a turn off; 0 of what is no angle
    around: Tensor  # std about that; very wide: the angle is anything

    @staticmethod
    def normal(std: Tensor) -> ErrorLaw:
        """Of a Gaussian; an infinite `std` knows nothing."""
        known, zero = std.isfinite(), torch.zeros_like(std)
        core = std.where(known, 1.0).clamp_min(LEAST)
        lost, around = 1 - known.to(std), zero + WIDEST * FULL
        return ErrorLaw(core, zero, zero + 1, zero, zero + 1, lost, around)

    @staticmethod
    def of(table: Tensor) -> ErrorLaw:
        """From what `table` made."""
        return ErrorLaw(*table.unbind(-1))

    def _normals(self) -> tuple[Tensor, Tensor]:
        """Shares and widths, `[..., 3]` each, from the narrowest."""
        wider = self.core * self.factor
        shares = (1 - self.share - self.rare, self.share, self.rare)
        widths = (self.core, wider, wider * self.far)
        return torch.stack(shares, dim=-1), torch.stack(widths, dim=-1)

    def table(self) -> Tensor:
        """As one tensor `[..., 7]`."""
        return torch.stack(list(self), dim=-1)

    def within_turn(self, error: Tensor, order: Tensor | float = 1.0) -> Tensor:
        """Probability of an angle's error to be at most `error` rad, to either side.

        Args:
            error: `[...]` rad, from 0 to pi / order.
            order: the angle repeats after 2 pi / order.
        """
        half = _half(error, order)
        weight, width = self._normals()
        known = (weight * _wrapped(error[..., None], width, half[..., None])).sum(-1)
        away = 1 - _wrapped((half - error).clamp_min(0.0), self.around, half)
        return (1 - self.lost) * known + self.lost * away

    def within_ellipse(self, distance: Tensor) -> Tensor:
        """Probability of a Mahalanobis distance on the plane up to `distance`."""
        weight, width = self._normals()
        return 1 - (weight * (-0.5 * (distance[..., None] / width).square()).exp()).sum(-1)

    def within_line(self, value: Tensor) -> Tensor:
        """Probability of an error on one axis of the plane to be below `value`, of either sign."""
        weight, width = self._normals()
        z = value[..., None] / (width * math.sqrt(2))
        return (weight * 0.5 * (1 + torch.erf(z))).sum(-1)

    def turn(self, levels: tuple[float, ...], order: Tensor | float = 1.0) -> Tensor:
        """Half-widths, rad, of the intervals around an angle that hold the truth so often.

        To half a percent: interpolated between points that lie close on a logarithmic scale.

        Args:
            levels: L probabilities.
            order: the angle repeats after 2 pi / order.

        Returns:
            `[..., L]`.
        """
        half = _half(self.core, order).expand_as(self.core)
        first = torch.minimum(FINEST * self.core, half / 2)
        steps = torch.linspace(0.0, 1.0, GRID).to(self.core)
        x = first[..., None] * (half / first)[..., None] ** steps
        wide = ErrorLaw(*(value[..., None] for value in self))
        inside = wide.within_turn(x, _unsqueezed(order))
        level = torch.tensor(levels, device=x.device).to(x).expand(*x.shape[:-1], -1)
        index = (inside[..., None] < level[..., None, :]).sum(-2).clamp(1, GRID - 1)
        (a, b), (low, high) = (
            (value.gather(-1, index - 1), value.gather(-1, index)) for value in (x, inside)
        )
        part = ((level - low) / (high - low).clamp_min(1e-9)).clamp(0.0, 1.0)
        return a + part * (b - a)

    def ellipse(self, levels: tuple[float, ...]) -> Tensor:
        """Mahalanobis distances up to which the truth lies so often.

        Args:
            levels: L probabilities.

        Returns:
            `[..., L]`.
        """
        if torch.compiler.is_exporting():
            return self.core[..., None] * unrolled_ellipse(self, levels)
        shapes = torch.stack([self.share, self.factor, self.rare, self.far], dim=-1)
        rows = shapes.view(-1, 4).tolist()
        factors = shapes.new_tensor([[_ellipse(*row, level) for level in levels] for row in rows])
        return self.core[..., None] * factors.view(*self.core.shape, len(levels))

    def log_density(self, error: Tensor, *, plane: bool, order: Tensor | float = 1.0) -> Tensor:
        """Log density of errors, up to a constant.

        Args:
            error: `[...]`, an angle's (rad), or a Mahalanobis distance on the plane.
            plane: which of both.
            order: of the angle.
        """
        half = _half(error, order)
        axes = 2 if plane else 1
        normals = zip(*(value.unbind(-1) for value in self._normals()), strict=True)
        parts = [((1 - self.lost) * part, width, error) for part, width in normals]
        turns = torch.arange(-WRAPS, WRAPS + 1)
        if plane:
            turns = torch.zeros(1)
        else:
            parts.append((self.lost, self.around, half - error))
        logs = []
        for weight, width, offset in parts:
            std = width if plane else torch.minimum(width, WIDEST * half)
            z = (offset[..., None] + 2 * half[..., None] * turns.to(error)) / std[..., None]
            logs.append((weight.log() - axes * std.log())[..., None] - 0.5 * z.square())
        return torch.cat(logs, dim=-1).logsumexp(-1)


def _half(like: Tensor, order: Tensor | float) -> Tensor:
    """The farthest that an angle can be wrong which repeats after 2 pi / `order`, rad."""
    return FULL / torch.as_tensor(order, device=like.device).to(like).clamp_min(1.0)


def _unsqueezed(order: Tensor | float) -> Tensor | float:
    return order[..., None] if isinstance(order, Tensor) and order.dim() else order


def _wrapped(error: Tensor, std: Tensor, half: Tensor) -> Tensor:
    """Probability that a normal angle, wrapped to +-`half`, is at most `error` away."""
    scale = 1 / (torch.minimum(std, WIDEST * half) * math.sqrt(2))
    # Each turn's share lies between `-error` and `error` from it: half of it is one erf less
    # another, and of the turn to the other side that other one is the first.
    turns = torch.arange(-WRAPS, WRAPS + 1, device=error.device).to(error)
    ends = error[..., None] + 2 * half[..., None] * turns
    return torch.erf(ends * scale[..., None]).sum(-1).clamp(0.0, 1.0)


@lru_cache(maxsize=256)
def _ellipse(share: float, factor: float, rare: float, far: float, level: float) -> float:
    """`ErrorLaw.ellipse` for a core of 1.

    With s half of its square, what lies outside is a mixture of exp(-rate s). The logarithm of that
    is convex: Newton's method, from where the core alone would leave as much outside, comes to the
    root from one side.
    """
    parts = ((1 - share - rare, 1.0), (share, factor**-2), (rare, (factor * far) ** -2))
    s = -math.log1p(-level)
    for _ in range(NEWTON):
        shares = [weight * math.exp(-rate * s) for weight, rate in parts]
        outside = sum(shares)
        slope = sum(part * rate for part, (_, rate) in zip(shares, parts, strict=True))
        step = (math.log(outside) - math.log1p(-level)) * outside / slope
        s += step
        if step <= 1e-6 * s:
            break
    return math.sqrt(2 * s)


def unrolled_ellipse(law: ErrorLaw, levels: tuple[float, ...]) -> Tensor:
    """`_ellipse` of tensors, `[..., L]`, with as many steps for all: what a graph can hold."""
    weights, widths = law._replace(core=torch.ones_like(law.core))._normals()
    weights, rates = weights.double()[..., None, :], widths.double()[..., None, :] ** -2
    start = -torch.log1p(-torch.tensor(levels, dtype=torch.float64))
    s = start.expand(*law.core.shape, len(levels))
    for _ in range(UNROLLED):
        shares = weights * (-rates * s[..., None]).exp()
        outside = shares.sum(-1)
        s = s + (outside.log() + start) * outside / (shares * rates).sum(-1)
    return (2 * s).sqrt().to(law.core.dtype)

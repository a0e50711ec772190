"""Fitting the laws of `inference.calibrate` to errors that were made."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from inference.calibrate import (
    LEAST_PROBABILITY,
    Curve,
    Law,
    Lost,
    Tails,
    hinges,
    log_grain,
)
from inference.errors import ErrorLaw

QUANTILES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.98)  # of claims, where the knots of a curve are
APART = 0.02  # claims closer than that in their logarithm share a knot
FEWEST = 30  # errors that a law can be fitted to
RIDGE = 1e-3  # nats, pulls on everything so that nothing runs away
SHARES = 0.8, 0.2  # of the wider normals, at most
LEAST_ERROR = 1e-7  # m or rad: below what positions are written with
TAIL_AT_FIRST = (0.0, -0.5, -1.0, 1.0)  # shares and factors, in logits and before softplus
FADE_AT_FIRST = -2.0  # before softplus
LOST_AT_FIRST = (2.0, -0.5)  # slope, and log of the width in rad
LOGIT_AT_FIRST = -1.0  # at 1 rad
STEPS = 300
DOUBT = 0.3  # std of the log of a temperature that is expected before anything was seen


class FittingError(ValueError):
    """Too little was seen to say what errors are like."""


def fit_law(
    claims: Sequence[Tensor],
    errors: Tensor,
    grain: Tensor,
    *,
    order: Tensor | None = None,
    identity: Tensor | None = None,
    classes: int = 0,
    flips: bool = False,
) -> Law:
    """The law of M errors, by maximum likelihood.

    Args:
        claims: standard deviations that were claimed, `[M]` each, in the unit of the errors. The
            first may be exceeded by any amount later, the others only as far as here.
        errors: `[M]`, of angles (rad), or of positions: Mahalanobis distances times the first
            claim.
        grain: `[M]`, of the pictures.
        order: `[M]`, angles repeat after 2 pi / order; not given for positions.
        identity: `[M]` int64, classes of the objects; not given of what is no object's.
        classes: C, how many there are.
        flips: whether angles of objects may be half a turn off.

    Raises:
        FittingError: there are too few.
    """
    if len(errors) < FEWEST:
        raise FittingError(
            f"{len(errors)} errors are too few to fit how wide they are: give --scenes more"
        )
    logs = [claim.double().clamp_min(1e-12).log() for claim in claims]
    knots = [_knots(log) for log in logs]
    parts = [hinges(log, x) for log, x in zip(logs, knots, strict=True)]
    error, dust = errors.double().clamp_min(LEAST_ERROR), log_grain(grain.double())
    widths = [1, *(len(x) - 1 for x in knots), 1, 4, 1, 2, classes, classes]
    start = torch.zeros(sum(widths), dtype=torch.float64)
    start[0] = error.log().median()
    first = [*TAIL_AT_FIRST, FADE_AT_FIRST, *LOST_AT_FIRST]
    first += [0.0] * classes + [LOGIT_AT_FIRST] * classes
    start[-len(first) :] = torch.tensor(first)
    free = start.clone().requires_grad_()

    def unpack() -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor, Tensor]:
        base, *rises, power, tail, fade, lost, own, logits = free.split(widths)
        honest = []
        for index, rise in enumerate(rises):
            first = base if index == 0 else torch.zeros_like(base)
            honest.append(torch.cat([first, softplus(rise - 1.0)]))
        shares, factors = torch.sigmoid(tail[::2]), 1 + softplus(tail[1::2])
        shape = [SHARES[0] * shares[0], factors[0], SHARES[1] * shares[1], factors[1]]
        tails = torch.stack([*shape, softplus(fade[0])])
        return honest, power[0], tails, lost, own, logits

    def law() -> ErrorLaw:
        honest, power, tails, lost, own, logits = unpack()
        total = power * dust
        if identity is not None:
            total = total + own[identity]
        for part, curve in zip(parts, honest, strict=True):
            total = total + part @ curve
        gone = torch.zeros_like(total)
        if flips and identity is not None:
            gone = torch.sigmoid(logits[identity] + softplus(lost[0]) * logs[-1])
        share, factor, rare, far, fades = tails[:, None].expand(-1, len(total))
        left = (-fades * dust).exp()
        around = lost[1].exp().expand_as(total)
        return ErrorLaw(total.exp(), share * left, factor, rare * left, far, gone, around)

    def loss() -> Tensor:
        optimizer.zero_grad()
        shape = order if order is not None else torch.ones_like(error)
        density = law().log_density(error, plane=order is None, order=shape)
        value: Tensor = -density.mean() + RIDGE * (free - start).square().mean()
        value.backward()
        return value

    optimizer = torch.optim.LBFGS([free], max_iter=STEPS, line_search_fn="strong_wolfe")
    with torch.enable_grad():
        optimizer.step(loss)
    free = free.detach()
    honest, power, tails, lost, own, logits = unpack()
    curves = tuple(
        Curve(claimed=tuple(x.tolist()), honest=tuple(curve.cumsum(0).tolist()), rises=index == 0)
        for index, (x, curve) in enumerate(zip(knots, honest, strict=True))
    )
    return Law(
        curves=curves,
        classes=tuple(own.tolist()),
        grain=float(power),
        tails=Tails(**dict(zip(Tails.model_fields, tails.tolist(), strict=True))),
        lost=Lost(
            logits=tuple(logits.tolist()),
            slope=float(softplus(lost[0])),
            around=float(lost[1].exp()),
        )
        if flips
        else None,
    )


def fit_temperature(probabilities: Tensor, truth: Tensor) -> float:
    """What to divide logarithms of probabilities `[M, N]` by, given what was true `[M]`.

    With few mistakes seen it stays near 1.
    """
    if not len(truth):
        return 1.0
    logs = probabilities.double().clamp_min(LEAST_PROBABILITY).log()
    tried = torch.linspace(-1.5, 1.5, 301, dtype=torch.float64)
    scaled = (logs[:, None] / tried.exp()[:, None]).log_softmax(dim=-1)  # [M, T, N]
    picked = scaled.gather(2, truth[:, None, None].expand(-1, len(tried), 1))[..., 0]
    score = picked.sum(0) - 0.5 * (tried / DOUBT).square()
    return math.exp(float(tried[score.argmax()]))


def _knots(log_claims: Tensor) -> Tensor:
    """Where the curve bends: quantiles of what is claimed, those that differ."""
    points = log_claims.quantile(log_claims.new_tensor(QUANTILES))
    kept = [points[0]]
    for point in points[1:]:
        if float(point - kept[-1]) > APART:
            kept.append(point)
    return torch.stack(kept)

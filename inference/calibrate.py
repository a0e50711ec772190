"""Calibration: from what a model claims of its errors to what they were on held-out scenes.

A claimed width is mapped to an honest one by a monotone curve, fitted by maximum likelihood of the
errors that were made (Kuleshov et al. 2018 recalibrate a regression by a monotone map, too), with
the tails of an `ErrorLaw`. Grain in a picture widens it: a network does not always say so. Counts
and classes have a temperature (Guo et al. 2017). A refined answer has curves of its own: the
curvature of its likelihood knows nothing of other ways in which a picture can be explained, which
the network does, so both are asked.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from inference.errors import LEVELS, ONE_SIGMA, ErrorLaw
from inference.estimate import Estimate
from inference.refine import Refined

LEAST_GRAIN = 0.002  # of a pixel: half a grey level; pictures are rounded to them
LAPLACIAN = 6.0 * 0.6745  # median of what the filter makes of normal noise, over its deviation
LEAST_PROBABILITY = 1e-12
NORMAL_ELLIPSE = math.sqrt(-2 * math.log1p(-ONE_SIGMA))  # of a Gaussian that holds as much

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Curve(_Part):
    """A piecewise linear, nondecreasing function of the logarithm of what is claimed."""

    claimed: tuple[Finite, ...] = Field(min_length=1)  # logarithms, ascending
    honest: tuple[Finite, ...] = Field(min_length=1)
    rises: bool  # beyond the last point by 1 for 1, or no more; before the first never

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if len(self.claimed) != len(self.honest):
            raise ValueError("`claimed` and `honest` must have one length")
        for name, values in (("claimed", self.claimed), ("honest", self.honest)):
            if any(b < a for a, b in pairwise(values)):
                raise ValueError(f"`{name}` must not fall")
        return self

    def __call__(self, log_claimed: Tensor) -> Tensor:
        """`[...]` to `[...]`."""
        x = log_claimed.new_tensor(self.claimed)
        y = log_claimed.new_tensor(self.honest)
        value = hinges(log_claimed, x) @ torch.cat([y[:1], y.diff()])
        return value + (log_claimed - x[-1]).clamp_min(0.0) if self.rises else value


def hinges(value: Tensor, knots: Tensor) -> Tensor:
    """1, then how much of the way between each two knots `[P]` a value has come: `[..., P]`."""
    share = (value[..., None] - knots[:-1]) / knots.diff().clamp_min(1e-9)
    return torch.cat([torch.ones_like(value)[..., None], share.clamp(0.0, 1.0)], dim=-1)


class Lost(_Part):
    """How probable it is that an object is turned the other way round."""

    logits: tuple[Finite, ...] = Field(min_length=1)  # by class, where 1 rad is claimed
    slope: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]  # with the claim's logarithm
    around: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]  # rad


class Tails(_Part):
    """How errors spread beyond a normal; see `ErrorLaw`."""

    share: Annotated[float, Field(ge=0.0, le=0.8)] = 0.0
    factor: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = 1.0
    rare: Annotated[float, Field(ge=0.0, le=0.2)] = 0.0
    far: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = 1.0
    # Power of the grain by which both shares fall: what grain does to a picture is nearly normal.
    fades: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0


class Law(_Part):
    """How wide one kind of error is, given what is claimed of it."""

    curves: tuple[Curve, ...] = Field(min_length=1)  # of each claim; their sum is log core
    classes: tuple[Finite, ...] = ()  # log factors by class; none of what has no class
    grain: Finite  # power of the grain
    tails: Tails
    lost: Lost | None = None  # of yaws only, which have classes

    @model_validator(mode="after")
    def _one_for_each_class(self) -> Self:
        if self.lost is not None and len(self.lost.logits) != len(self.classes):
            raise ValueError("`lost.logits` and `classes` must have one length")
        return self

    def __call__(
        self, claims: list[Tensor], grain: Tensor, identity: Tensor | None = None
    ) -> ErrorLaw:
        """The law of errors of which standard deviations `claims` (`[...]` each) are claimed.

        Args:
            claims: one for each curve, in the unit of the error.
            grain: `[...]`, of the pictures; see `grain_of`.
            identity: `[...]` int64, of the objects; not given of what is no object's.
        """
        if len(claims) != len(self.curves):
            raise ValueError(f"{len(claims)} claims for {len(self.curves)} curves")
        logs = [claim.clamp_min(1e-12).log() for claim in claims]
        total = self.grain * log_grain(grain)
        for curve, log in zip(self.curves, logs, strict=True):
            total = total + curve(log)
        if identity is not None and self.classes:
            total = total + total.new_tensor(self.classes)[identity]
        lost, around = torch.zeros_like(total), 1.0
        if self.lost is not None and identity is not None:
            base = total.new_tensor(self.lost.logits)[identity]
            lost = torch.sigmoid(base + self.lost.slope * logs[-1])
            around = self.lost.around
        tails = self.tails
        left = (-tails.fades * log_grain(grain)).exp().expand_as(total)  # of the tails
        factor, far, width = (
            torch.full_like(total, value) for value in (tails.factor, tails.far, around)
        )
        return ErrorLaw(
            total.exp(), tails.share * left, factor, tails.rare * left, far, lost, width
        )


class Laws(_Part):
    """What is known of the answers of one kind: the single pass, or the refined ones."""

    position: Law
    yaw: Law | None  # None where no class's yaw can be seen
    azimuth: Law | None  # None where the camera does not move
    count_temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    class_temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Calibration(_Part):
    """What was fitted on held-out scenes; in a checkpoint's config.json."""

    format: Literal[1] = 1
    scenes: int = Field(ge=1)  # that the single pass was fitted on
    refined_scenes: int = Field(ge=0)
    seed: int
    single: Laws
    refined: Laws | None  # None: not fitted, refined answers keep their curvature

    def of_single(self, estimate: Estimate, orders: Tensor, grain: Tensor) -> Estimate:
        """What the network said, so that it means what it says.

        Args:
            estimate: by the network, of B images.
            orders: `[C]` int64, symmetry order of each class.
            grain: `[B]`, of the images; see `grain_of`.
        """
        claims = claims_of_single(estimate)
        return _tempered(_spread(estimate, self.single, claims, orders, grain), self.single)

    def of_refined(self, refined: Refined, orders: Tensor, grain: Tensor) -> Estimate:
        """The same of a refined answer; where it was not `curved` it stays the single pass's.

        Args:
            refined: from estimates that `of_single` made.
            orders: `[C]` int64, symmetry order of each class.
            grain: `[B]`, of the images; see `grain_of`.
        """
        laws, estimate = self.refined, refined.estimate
        if laws is None:
            return estimate
        spread = _spread(estimate, laws, claims_of(refined), orders, grain)
        spread = with_intervals(_where(refined.curved, spread, estimate), orders)
        return _tempered(spread, laws)


class Claims(NamedTuple):
    """Standard deviations that are claimed, a list for each: one, or the curvature's first."""

    position: list[Tensor]  # [B, K] m
    yaw: list[Tensor]  # [B, K] rad
    azimuth: list[Tensor]  # [B] rad


def claims_of_single(estimate: Estimate) -> Claims:
    """By the network alone."""
    place = plane_std(estimate.position_covariance)
    return Claims([place], [estimate.yaw_std], [estimate.azimuth_std])


def claims_of(refined: Refined) -> Claims:
    """By the curvature, and by the network, which was asked first."""
    now, before = refined.estimate, refined.before
    return Claims(
        [plane_std(now.position_covariance), plane_std(before.position_covariance)],
        [now.yaw_std, before.yaw_std],
        [now.azimuth_std, before.azimuth_std],
    )


def plane_std(covariance: Tensor) -> Tensor:
    """The size of covariances `[..., 2, 2]` m^2 as one standard deviation `[...]` m."""
    (a, b), (c, d) = ([covariance[..., i, j] for j in range(2)] for i in range(2))
    return (a.double() * d - b.double() * c).clamp_min(1e-24).pow(0.25).to(covariance)


def grain_of(image: Tensor) -> Tensor:
    """Standard deviation of the noise in images `[B, 3, H, W]` in [0, 1]: `[B]`.

    By what a filter that sees no plane and no edge along an axis leaves of the mean of the colours
    (Immerkaer 1996); its median, which edges do not move.
    """
    grey = image.mean(dim=1)
    along = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    left = along[..., :-2] - 2 * along[..., 1:-1] + along[..., 2:]
    return left.abs().flatten(1).median(dim=1).values / LAPLACIAN * math.sqrt(3)


def log_grain(grain: Tensor) -> Tensor:
    """0 without grain, then its logarithm in units of LEAST_GRAIN."""
    return 0.5 * torch.log1p((grain / LEAST_GRAIN).square())


def _spread(
    estimate: Estimate, laws: Laws, claims: Claims, orders: Tensor, grain: Tensor
) -> Estimate:
    """The estimate with honest spreads."""
    place, turn, azimuth = claims
    identity = estimate.scene.identity.clamp(0, len(orders) - 1)
    order = orders[identity]
    shows = order != 0
    placed = laws.position(place, grain[:, None], identity)
    yaw_law, azimuth_law = estimate.yaw_law, estimate.azimuth_law
    if laws.yaw is not None:
        law = laws.yaw([claim.where(shows, 1.0) for claim in turn], grain[:, None], identity)
        yaw_law = law.table().where(shows[..., None], yaw_law)
    if laws.azimuth is not None:
        azimuth_law = laws.azimuth(azimuth, grain).table()
    reach, turned, seen = reaches(placed, yaw_law, azimuth_law, order)
    std = reach[..., 0] / NORMAL_ELLIPSE
    scale = (std / place[0].clamp_min(1e-12)).square()
    known = laws.yaw is not None
    return replace(
        estimate,
        position_covariance=estimate.position_covariance * scale[..., None, None],
        position_law=placed._replace(core=placed.core / std).table(),
        position_within=reach[..., 1:] / std[..., None],
        yaw_std=turned[..., 0].where(shows, math.inf) if known else estimate.yaw_std,
        yaw_law=yaw_law,
        yaw_within=turned[..., 1:],
        azimuth_std=estimate.azimuth_std if laws.azimuth is None else seen[..., 0],
        azimuth_law=azimuth_law,
        azimuth_within=seen[..., 1:],
    )


def with_intervals(estimate: Estimate, orders: Tensor) -> Estimate:
    """The estimate with the intervals that its laws imply.

    Args:
        estimate: of B images.
        orders: `[C]` int64, symmetry order of each class.
    """
    order = orders[estimate.scene.identity.clamp(0, len(orders) - 1)]
    law = ErrorLaw.of(estimate.position_law)
    found = reaches(law, estimate.yaw_law, estimate.azimuth_law, order)
    position, yaw, azimuth = (reach[..., 1:] for reach in found)
    return replace(estimate, position_within=position, yaw_within=yaw, azimuth_within=azimuth)


def reaches(
    position: ErrorLaw, yaw: Tensor, azimuth: Tensor, order: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """How far the truth may be, for ONE_SIGMA and each of LEVELS: `[..., 5]`, all turns at once.

    Args:
        position: laws `[B, K]` of distances.
        yaw: laws `[B, K, 7]`, by `ErrorLaw.table`.
        azimuth: laws `[B, 7]`.
        order: `[B, K]` int64, symmetry order of the objects.
    """
    levels = (ONE_SIGMA, *LEVELS)
    # The camera's angle is one more, which repeats after a full turn.
    orders = torch.cat([order, torch.ones_like(order[:, :1])], dim=1)
    turns = ErrorLaw.of(torch.cat([yaw, azimuth[:, None]], dim=1)).turn(levels, orders)
    return position.ellipse(levels), turns[:, :-1], turns[:, -1]


def _tempered(estimate: Estimate, laws: Laws) -> Estimate:
    """The estimate with honest probabilities; the most probable stays what it was."""
    count = _temper(estimate.count_probabilities, laws.count_temperature)
    at_least = count.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    return replace(
        estimate,
        count_probabilities=count,
        presence_probability=at_least,
        class_probabilities=_temper(estimate.class_probabilities, laws.class_temperature),
    )


def _temper(probabilities: Tensor, temperature: float) -> Tensor:
    if temperature == 1.0:
        return probabilities
    return (probabilities.clamp_min(LEAST_PROBABILITY).log() / temperature).softmax(dim=-1)


def _where(rows: Tensor, one: Estimate, other: Estimate) -> Estimate:
    """The spreads of `one` where `rows` `[B]`, of `other` elsewhere."""
    names = ("position_covariance", "yaw_std", "azimuth_std")
    changes = {}
    for name in (*names, "position_law", "yaw_law", "azimuth_law"):
        mine, theirs = getattr(one, name), getattr(other, name)
        changes[name] = mine.where(rows.view(-1, *[1] * (mine.dim() - 1)), theirs)
    return replace(other, **changes)

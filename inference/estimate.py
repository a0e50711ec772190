"""The point estimate: the most probable scene of a picture, and how sure each part of it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import torch
from torch import Tensor

from inference.cell import Objects, Proposals
from inference.distributions import VonMises, resultant_std
from inference.errors import ErrorLaw
from renderer.scene import Scene


def _unknown() -> Tensor:
    return torch.empty(0)


@dataclass(frozen=True)
class Estimate:
    """The most probable scene of each picture, and how sure each part of it is.

    Rows behind the last present object hold what the network would say if there were one more.

    The laws are those of `ErrorLaw.table`; where none are given they are Gaussian. Of positions
    they are laws of the distance in units of the covariance. What calibration has seen has its
    intervals, too: half-widths that hold the truth as often as `errors.LEVELS` say, by the laws.
    """

    scene: Scene
    count_probabilities: Tensor  # [B, K + 1]
    presence_probability: Tensor  # [B, K] that there are at least k + 1 objects
    class_probabilities: Tensor  # [B, K, C]
    position_covariance: Tensor  # [B, K, 2, 2] m^2, table frame
    yaw_std: Tensor  # [B, K] rad; infinite when no turn shows
    azimuth_std: Tensor  # [B] rad; 0 when the camera does not move
    position_law: Tensor = field(default_factory=_unknown)  # [B, K, 7]
    yaw_law: Tensor = field(default_factory=_unknown)  # [B, K, 7], rad
    azimuth_law: Tensor = field(default_factory=_unknown)  # [B, 7], rad
    position_within: Tensor = field(default_factory=_unknown)  # [B, K, 4], or [B, K, 0]: not known
    yaw_within: Tensor = field(default_factory=_unknown)  # [B, K, 4] rad, or [B, K, 0]
    azimuth_within: Tensor = field(default_factory=_unknown)  # [B, 4] rad, or [B, 0]

    def __post_init__(self) -> None:
        one = torch.ones_like(self.yaw_std)
        for name, std in (("position", one), ("yaw", self.yaw_std), ("azimuth", self.azimuth_std)):
            if not getattr(self, f"{name}_law").numel():
                object.__setattr__(self, f"{name}_law", ErrorLaw.normal(std).table())
            if not getattr(self, f"{name}_within").numel():
                object.__setattr__(self, f"{name}_within", std.new_empty(*std.shape, 0))

    def __getitem__(self, index: int | slice | Tensor) -> Estimate:
        """The estimates at `index`, still as a batch."""
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        return Estimate(
            self.scene[index], *(getattr(self, field.name)[index] for field in fields(self)[1:])
        )

    def to(self, device: torch.device | str) -> Estimate:
        """The same estimates on `device`."""
        return Estimate(*(getattr(self, field.name).to(device) for field in fields(self)))

    @staticmethod
    def cat(estimates: Sequence[Estimate]) -> Estimate:
        """One batch from several."""
        return Estimate(
            Scene.cat([estimate.scene for estimate in estimates]),
            *(
                torch.cat([getattr(estimate, field.name) for estimate in estimates])
                for field in fields(Estimate)[1:]
            ),
        )


class Peak(NamedTuple):
    """One object at a peak of the mixture over proposals, and its spread around the peak."""

    objects: Objects  # [B], view frame
    classes: Tensor  # [B, C] probabilities
    covariance: Tensor  # [B, 2, 2] m^2, view frame
    yaw_std: Tensor  # [B] rad; infinite when no turn shows


class Peaks:
    """The peaks of mixtures over the proposals of one batch of pictures.

    What is averaged over the proposals is the same at each step, whose weights alone differ. It is
    computed once, and a step's averages are a single product. In doubles: the moments of positions
    about their frame's origin have to be told apart by less than a millimetre squared, and of sharp
    angles the resultant from 1 (see `VonMises.resultant`).

    Args:
        proposals: of G cells.
        orders: `[C]` int64, symmetry order of each class.
    """

    def __init__(self, proposals: Proposals, orders: Tensor) -> None:
        self._position, self._orders = proposals.position, orders
        turned = VonMises(*(value.double() for value in proposals.turned))
        length, mean = turned.resultant(), proposals.position.mean.double()
        x, y = mean.unbind(-1)
        spread = proposals.position.covariance().double().flatten(-2)
        second = spread + torch.stack([x * x, x * y, x * y, y * y], dim=-1)
        parts = (
            *(mean, second, proposals.class_logits.softmax(-1).double()),
            *(length * turned.loc.cos(), length * turned.loc.sin()),
        )
        self._sizes = [part.shape[-1] for part in parts]
        self._moments = torch.cat(parts, dim=-1)  # [B, G, 6 + 3 C]

    def find(self, log_weights: Tensor) -> Peak:
        """The object at the highest peak: the proposals that agree on one, averaged.

        The mean of the whole mixture would lie between the objects that a step may take first.

        Args:
            log_weights: `[B, G]` of the mixture.
        """
        row = torch.arange(log_weights.shape[0], device=log_weights.device)
        centre = self._position.mean[row, log_weights.argmax(1)]
        weight = (log_weights + self._position.log_prob(centre[:, None])).softmax(1).double()
        weight = weight / weight.sum(1, keepdim=True)
        moments = (weight[:, None] @ self._moments)[:, 0]
        mean, second, classes, x, y = moments.split(self._sizes, dim=-1)
        covariance = second.unflatten(-1, (2, 2)) - mean[:, :, None] * mean[:, None]
        identity = classes.argmax(1)
        x, y = x[row, identity], y[row, identity]
        order = self._orders[identity]
        turns, shows = order.clamp_min(1), order != 0
        dtype = log_weights.dtype
        yaw = (torch.atan2(y.to(dtype), x.to(dtype)) / turns).where(shows, 0.0)
        std = (resultant_std((x * x + y * y).sqrt()) / turns).where(shows, math.inf)
        return Peak(
            Objects(identity, mean.to(dtype), yaw),
            classes.to(dtype),
            covariance.to(dtype),
            std.to(dtype),
        )

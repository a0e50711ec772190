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
    they are laws of the distance in units of the covariance.
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

    def __post_init__(self) -> None:
        one = torch.ones_like(self.yaw_std)
        for name, std in (("position", one), ("yaw", self.yaw_std), ("azimuth", self.azimuth_std)):
            if not getattr(self, f"{name}_law").numel():
                object.__setattr__(self, f"{name}_law", ErrorLaw.normal(std).table())

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


def find_peak(proposals: Proposals, log_weights: Tensor, orders: Tensor) -> Peak:
    """The object at the mixture's highest peak: the proposals that agree on one, averaged.

    The mean of the whole mixture would lie between the objects that a step may take first.

    Args:
        proposals: of G cells.
        log_weights: `[B, G]` of the mixture.
        orders: `[C]` int64, symmetry order of each class.
    """
    row = torch.arange(len(log_weights), device=log_weights.device)
    best = log_weights.argmax(1)
    centre = proposals.position.mean[row, best]
    agreement = proposals.position.log_prob(centre[:, None])
    weight = (log_weights + agreement).softmax(1)  # [B, G]
    mean = (weight[..., None] * proposals.position.mean).sum(1)
    offset = proposals.position.mean - mean[:, None]
    spread = proposals.position.covariance() + offset[..., None] * offset[..., None, :]
    classes = (weight[..., None] * proposals.class_logits.softmax(-1)).sum(1)
    identity = classes.argmax(1)
    order = orders[identity]
    turned = VonMises(*(value[row, :, identity] for value in proposals.turned))
    # In doubles, for the sake of sharp densities: see `VonMises.resultant`.
    share, loc = weight.double() / weight.double().sum(1, keepdim=True), turned.loc.double()
    length = share * turned.resultant()
    x, y = (length * loc.cos()).sum(1), (length * loc.sin()).sum(1)
    yaw = torch.where(order == 0, 0.0, torch.atan2(y, x) / order.clamp_min(1)).to(mean.dtype)
    std = (resultant_std(torch.hypot(x, y)) / order.clamp_min(1)).to(mean.dtype)
    return Peak(
        Objects(identity, mean, yaw),
        classes,
        (weight[..., None, None] * spread).sum(1),
        torch.where(order == 0, math.inf, std),
    )

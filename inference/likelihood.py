"""How far a rendered picture may be from the image that it explains (appendix H.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

REACH = 3.0  # standard deviations of the blur after which its kernel ends


@dataclass(frozen=True)
class Likelihood:
    """log p(image | picture): both blurred by a fixed kernel, then a Gaussian for each pixel.

    The blur gives gradients their reach: without it, an object that is drawn beside where it is
    seen would not learn in which direction to go. The density is one of the blurred image.
    """

    std: float = 0.3  # grey levels, of 1
    blur: float = 0.0  # px, standard deviation of the kernel; 0 for none

    def __post_init__(self) -> None:
        if not (math.isfinite(self.std) and self.std > 0):
            raise ValueError(f"Likelihood.std is {self.std}; it must be finite and above 0")
        if not (math.isfinite(self.blur) and self.blur >= 0):
            raise ValueError(f"Likelihood.blur is {self.blur}; it must be finite and not below 0")

    def log_prob(self, image: Tensor, picture: Tensor) -> Tensor:
        """Log density of images given the pictures that explain them, nats: `[...]`.

        The images are blurred here as well: whoever compares one with many pictures gives it an
        axis of length one, and it is blurred once.

        Args:
            image: `[..., channels, H, W]` in [0, 1].
            picture: the same shape, or one that broadcasts with it.
        """
        values = math.prod(image.shape[-3:])
        normaliser = values * math.log(self.std * math.sqrt(2 * math.pi))
        return -values * self.mean_square(image, picture) / (2 * self.std**2) - normaliser

    def mean_square(self, image: Tensor, picture: Tensor) -> Tensor:
        """Mean square of what is left of images without their pictures, both blurred: `[...]`."""
        difference = blurred(image, self.blur) - blurred(picture, self.blur)
        return difference.square().mean(dim=(-3, -2, -1))


def blurred(image: Tensor, std: float) -> Tensor:
    """Images `[..., channels, H, W]` blurred by a Gaussian of `std` px; edges go on outwards.

    The kernel is separable and cut off at three standard deviations. A matrix for each axis: on a
    CPU far faster than convolutions with one channel.
    """
    if std == 0:
        return image
    rows, columns = (_matrix(side, std, image.dtype).to(image) for side in image.shape[-2:])
    return rows @ image @ columns.T


@lru_cache(maxsize=64)
def _matrix(side: int, std: float, dtype: torch.dtype) -> Tensor:
    """What each of `side` pixels takes of each: `[side, side]`, rows summing to 1."""
    radius = math.ceil(REACH * std)
    offset = torch.arange(-radius, radius + 1)
    weight = torch.exp(-0.5 * (offset.double() / std).square())
    # Beyond the edge there is the edge's pixel again.
    taken = (torch.arange(side)[:, None] + offset).clamp(0, side - 1)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, taken, (weight / weight.sum()).expand(side, -1)).to(dtype)

"""How far a rendered picture may be from the image that it explains (appendix H.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

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
        difference = blurred(image, self.blur) - blurred(picture, self.blur)
        values = math.prod(difference.shape[-3:])
        normaliser = values * math.log(self.std * math.sqrt(2 * math.pi))
        return -difference.square().sum(dim=(-3, -2, -1)) / (2 * self.std**2) - normaliser


def blurred(image: Tensor, std: float) -> Tensor:
    """Images `[..., channels, H, W]` blurred by a Gaussian of `std` px; edges go on outwards.

    The kernel is separable and cut off at three standard deviations.
    """
    if std == 0:
        return image
    kernel = _kernel(std).to(image)
    radius = len(kernel) // 2
    flat = image.reshape(-1, 1, *image.shape[-2:])
    flat = functional.pad(flat, (radius,) * 4, mode="replicate")
    flat = functional.conv2d(flat, kernel.view(1, 1, 1, -1))
    flat = functional.conv2d(flat, kernel.view(1, 1, -1, 1))
    return flat.view(image.shape)


@lru_cache(maxsize=64)
def _kernel(std: float) -> Tensor:
    """The weights of a blur of `std` px, `[2 R + 1]`, summing to 1."""
    radius = math.ceil(REACH * std)
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weight = torch.exp(-0.5 * (offset / std).square())
    return weight / weight.sum()

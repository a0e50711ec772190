"""What every model of whole images can do that the paper holds AIR against.

These have no objects: an image is one code, or many, of which none is anywhere or absent. They are
trained, measured and kept as AIR is, and differ from it in nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from inference.likelihood import Likelihood

Noise = torch.Generator | Literal["none"] | None
"""Generator of a draw, torch's own for None; `none` takes the means."""


class RivalConfig(BaseModel):
    """The images of a rival, and their noise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = Field(default=50, ge=8)  # px, of the canvas
    channels: Literal[1, 3] = 1
    std: float = Field(default=0.3, gt=0)  # of a pixel, grey levels of 1


class Rival(nn.Module, ABC):
    """A model of images and the network that inverts it.

    Args:
        config: of the images.
    """

    config: RivalConfig

    def __init__(self, config: RivalConfig) -> None:
        super().__init__()
        self.config = config
        self.likelihood = Likelihood(config.std)

    @abstractmethod
    def explain(self, image: Tensor, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """What is drawn for images, and what the codes for that cost.

        Args:
            image: `[B, channels, side, side]` in [0, 1].
            noise: of the codes.

        Returns:
            Pictures like the images, and KL(q || p) of all codes, nats, `[B]`.
        """

    @abstractmethod
    def imagine(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Images `[n, channels, side, side]` that the model makes up (noise left out)."""

    def bound(
        self, image: Tensor, *, code_weight: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """The bound of equation 3 with one draw of the codes, nats, `[B]`; differentiable.

        Args:
            image: `[B, channels, side, side]` in [0, 1].
            code_weight: what a nat of divergence counts; see `enumerated_bound`.
            generator: of random numbers.

        Raises:
            ValueError: the images have another shape.
        """
        self._check(image)
        picture, divergence = self.explain(image, noise=generator)
        return self.likelihood.log_prob(image, picture) - code_weight * divergence

    @torch.no_grad()
    def reconstruct(self, image: Tensor) -> Tensor:
        """Images drawn again, at the centre of every density: `[B, channels, side, side]`.

        Raises:
            ValueError: the images have another shape.
        """
        self._check(image)
        return self.explain(image, noise="none")[0]

    def _check(self, image: Tensor) -> None:
        c = self.config
        expected = (c.channels, c.side, c.side)
        if tuple(image.shape[1:]) != expected:
            raise ValueError(f"images have shape {tuple(image.shape[1:])}, expected {expected}")

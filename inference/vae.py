"""A plain variational autoencoder of whole images (Kingma & Welling, 2014; figure 2, left)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from inference.air2d import LOG_STD_RANGE
from inference.decoder2d import DARK, perceptron
from inference.distributions import Gaussian
from inference.rival import Noise, Rival, RivalConfig


class VaeConfig(RivalConfig):
    """The sizes of an autoencoder's networks; its layers are as wide as those of AIR's glimpses."""

    kind: Literal["vae"] = "vae"
    what: int = Field(default=50, ge=1)  # numbers of an image's code
    encoder: tuple[int, ...] = (512, 256)
    decoder: tuple[int, ...] = (256, 512)


class Vae(Rival):
    """The model of images and the network that inverts it.

    Args:
        config: images, noise and sizes.
    """

    config: VaeConfig

    def __init__(self, config: VaeConfig | None = None) -> None:
        self.config = c = config or VaeConfig()
        super().__init__(c)
        pixels = c.channels * c.side * c.side
        self.encoder = perceptron(pixels, c.encoder, 2 * c.what)
        self.decoder = perceptron(c.what, c.decoder, pixels)
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, DARK)

    def explain(self, image: Tensor, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """See `Rival.explain`."""
        mean, log_std = self.encoder(image.flatten(1)).to(image.dtype).chunk(2, dim=1)
        said = Gaussian(mean, log_std.clamp(*LOG_STD_RANGE).exp())
        prior = Gaussian(image.new_zeros(()), image.new_ones(()))
        codes = said.mean if noise == "none" else said.sample(noise)
        return self._draw(codes), said.divergence(prior).sum(1)

    @torch.no_grad()
    def imagine(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """See `Rival.imagine`."""
        codes = torch.randn(n, self.config.what, generator=generator)
        return self._draw(codes.to(next(self.parameters())))

    def _draw(self, codes: Tensor) -> Tensor:
        """Codes `[B, what]` to pictures `[B, channels, side, side]`."""
        c = self.config
        drawn = torch.sigmoid(self.decoder(codes).to(codes.dtype))
        return drawn.unflatten(1, (c.channels, c.side, c.side))

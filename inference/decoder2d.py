"""The learned decoder of figure 3: codes become small pictures, placed and summed on a canvas."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from inference.glimpse import write
from inference.glimpses import Glimpses

DARK = -2.0  # first bias of the output, logits: what has not been learned yet draws little


class GlimpseDecoder(nn.Module):
    """p(image | glimpses) but for the noise: the decoder of a variational autoencoder, and paste.

    Args:
        what: D, numbers of a code.
        widths: of the hidden layers.
        channels: of a picture.
        window: px, of what a code becomes.
        side: px, of the canvas.
    """

    def __init__(
        self, what: int, widths: tuple[int, ...], channels: int, window: int, side: int
    ) -> None:
        super().__init__()
        self.shape, self.side = (channels, window, window), side
        self.body = perceptron(what, widths, channels * window * window)
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, DARK)

    def glimpse(self, what: Tensor) -> Tensor:
        """Codes `[R, D]` to pictures `[R, channels, window, window]` in [0, 1]."""
        return torch.sigmoid(self.body(what)).unflatten(1, self.shape)

    def layers(self, where: Tensor, what: Tensor) -> Tensor:
        """Each glimpse alone on a canvas: `[R, K, channels, side, side]`.

        Args:
            where: `[R, K, 3]`, windows.
            what: `[R, K, D]`, codes.
        """
        drawn = write(self.glimpse(what.flatten(0, 1)), where.flatten(0, 1), self.side)
        return drawn.to(where.dtype).unflatten(0, where.shape[:2])

    def forward(self, latents: Glimpses) -> Tensor:
        """Images `[R, channels, side, side]`: the sum of what is present, not bounded by 1."""
        present = latents.presence[..., None, None, None]
        return (self.layers(latents.where, latents.what) * present).sum(1)


def perceptron(inputs: int, widths: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    sizes = [inputs, *widths, outputs]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])

"""The picture, once: a map of features over the table and a summary of the whole."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

STRIDE = 8  # input pixels per cell of the feature map
COARSE_STRIDE = 16  # input pixels per cell of the coarse map that sees the whole table


class Features(NamedTuple):
    """What the encoder made of a batch of pictures."""

    cells: Tensor  # [B, G, D], G = (H / STRIDE) (W / STRIDE) cells in rows from the top left
    summary: Tensor  # [B, E]


class Residual(nn.Module):
    """x + f(x) with one 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D, h, w]` to the same shape."""
        return x + self.body(x)


def conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, group norm, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


def levels(channels: int, blocks: int) -> tuple[nn.Sequential, nn.Sequential]:
    """From pictures less 0.5 to features at STRIDE, and from these to ones at COARSE_STRIDE.

    Args:
        channels: D, features of a cell; the coarse level has twice as many.
        blocks: residual blocks at each of the two levels.
    """
    fine = nn.Sequential(
        conv(3, 16, kernel=5, stride=2),
        conv(16, 48, stride=2),
        conv(48, channels, stride=2),
        *(Residual(channels) for _ in range(blocks)),
    )
    coarse = nn.Sequential(
        conv(channels, 2 * channels, stride=2),
        *(Residual(2 * channels) for _ in range(blocks)),
    )
    return fine, coarse


def coarse_cells(height: int, width: int) -> int:
    """Cells of the coarse level for pictures of `height` x `width` px.

    Raises:
        ValueError: they are not multiples of COARSE_STRIDE.
    """
    if height % COARSE_STRIDE or width % COARSE_STRIDE:
        raise ValueError(f"pictures must be multiples of {COARSE_STRIDE} px, got {height}x{width}")
    return (height // COARSE_STRIDE) * (width // COARSE_STRIDE)


class Encoder(nn.Module):
    """A small convolutional network with a coarse level that is added back to the fine one.

    Args:
        height: of the picture, px, a multiple of 16.
        width: of the picture, px, a multiple of 16.
        channels: D, features of a cell.
        summary: E, features of the whole picture.
        blocks: residual blocks at each of the two levels.
    """

    def __init__(self, height: int, width: int, channels: int, summary: int, blocks: int) -> None:
        super().__init__()
        cells = coarse_cells(height, width)
        self.fine, self.coarse = levels(channels, blocks)
        self.down = nn.Conv2d(2 * channels, channels, 1)
        self.merge = conv(channels, channels)
        self.squeeze = nn.Conv2d(2 * channels, 16, 1)
        self.summarise = nn.Sequential(nn.Linear(16 * cells, summary), nn.SiLU())

    def forward(self, image: Tensor) -> Features:
        """Pictures `[B, 3, H, W]` in [0, 1] to features."""
        fine = self.fine(image - 0.5)
        coarse = self.coarse(fine)
        wide = nn.functional.interpolate(self.down(coarse), scale_factor=2.0, mode="nearest")
        cells = self.merge(fine + wide).flatten(2).transpose(1, 2)
        summary = self.summarise(self.squeeze(coarse).flatten(1))
        return Features(cells.float(), summary.float())

"""The spatial transformer of figure 3: looks at a window of an image, and draws one back.

A window has a place and a size and is never turned, so that the two axes come apart: reading and
writing are a small matrix of interpolation weights for each axis, A_y x A_x^T, and two batched
products do on a CPU what `grid_sample` does pixel by pixel. The values, and the derivatives, are
those of bilinear sampling with zeros outside and pixels at the centres of their cells.

A window is given as `where`, `[..., 3]`: the logarithm of its side as a share of the canvas's, and
the horizontal and vertical position of its centre in half canvases from the middle; x to the right,
y downwards.
"""

from __future__ import annotations

import torch
from torch import Tensor


def read(image: Tensor, where: Tensor, window: int) -> Tensor:
    """What windows show, `[R, channels, window, window]`.

    Args:
        image: `[R, channels, side, side]`.
        where: `[R, 3]`, of one window for each image.
        window: px.
    """
    side, x, y = _pixels(where, image.shape[-1])
    offset = (torch.arange(window).to(where) + 0.5) / window - 0.5
    centre = torch.stack([y, x], 1)[..., None]  # rows, columns
    taps = _tents(centre + side[:, None, None] * offset, image.shape[-1])  # [R, 2, window, side]
    return taps[:, None, 0] @ image @ taps[:, None, 1].transpose(-1, -2)


def write(glimpse: Tensor, where: Tensor, side: int) -> Tensor:
    """Canvases `[R, channels, side, side]`, black but for one window each.

    Args:
        glimpse: `[R, channels, window, window]`.
        where: `[R, 3]`.
        side: of the canvas, px.
    """
    window = glimpse.shape[-1]
    extent, x, y = _pixels(where, side)
    place = torch.arange(side).to(where)
    centre = torch.stack([y, x], 1)[..., None]
    position = (place - centre) * (window / extent)[:, None, None] + (window - 1) / 2
    taps = _tents(position, window)  # [R, 2, side, window]
    return taps[:, None, 0] @ glimpse @ taps[:, None, 1].transpose(-1, -2)


def corners(where: Tensor, side: int) -> Tensor:
    """Windows as left, top, width and height, px from the corner of the canvas: `[..., 4]`.

    Args:
        where: `[..., 3]`.
        side: of the canvas, px.
    """
    extent, x, y = _pixels(where, side)
    half = extent / 2 - 0.5
    return torch.stack([x - half, y - half, extent, extent], -1)


def _pixels(where: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Side, x and y of windows in px; the centre of the first pixel is at 0."""
    log_side, x, y = where.unbind(-1)
    return log_side.exp() * side, (x + 1) * side / 2 - 0.5, (y + 1) * side / 2 - 0.5


def _tents(position: Tensor, pixels: int) -> Tensor:
    """How much of each of `pixels` a point between them takes: `[..., pixels]`, linear.

    Two numbers a point, put where they belong: the others are 0, and so are their derivatives.
    """
    low = position.detach().floor()
    share = position - low
    weight = torch.stack([1 - share, share], -1)
    pixel = low[..., None].long() + torch.arange(2, device=low.device)
    inside = (pixel >= 0) & (pixel < pixels)
    empty = position.new_zeros(*position.shape, pixels)
    return empty.scatter_add(-1, pixel.clamp(0, pixels - 1), weight * inside)

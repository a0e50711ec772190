"""Pictures that show what a model inferred."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from inference.air2d import Estimate2d
from inference.glimpse import corners

# Of the windows of the first, second and third step, as in figure 4; further ones are white.
COLOURS = ("red", "lime", "blue", "white")
EDGE = 0.35  # grey of the line between black images
SCALE = 2  # how much larger the images of `windows_panel` are than they were


def comparison_panel(image: Tensor, rendered: Tensor) -> Tensor:
    """A row of pictures above the same scenes re-rendered: `[3, 2 H, B W]`.

    Args:
        image: `[B, 3, H, W]` in [0, 1].
        rendered: likewise, drawn from what was inferred.
    """
    return torch.cat([torch.cat(list(row), dim=2) for row in (image, rendered)], dim=1)


def images_panel(image: Tensor, picture: Tensor, *, scale: int = SCALE) -> Tensor:
    """A row of images above what was made of them: `[3, 2 side, B side]`.

    Args:
        image: `[B, channels, side, side]` in [0, 1].
        picture: likewise, drawn from what was inferred.
        scale: px that a px of the images becomes.
    """
    rows = [torch.cat([_enlarged(one, scale) for one in row], dim=2) for row in (image, picture)]
    return torch.cat(rows, dim=1).cpu()


def windows_panel(image: Tensor, estimate: Estimate2d, *, scale: int = SCALE) -> Tensor:
    """A row of images above their reconstructions with the windows: `[3, 2 side, B side]`.

    Args:
        image: `[B, channels, side, side]` in [0, 1].
        estimate: of these images.
        scale: px that a px of the images becomes.
    """
    above = torch.cat([_enlarged(one, scale) for one in image], dim=2)
    below = []
    boxes = corners(estimate.where.mean, image.shape[-1]).tolist()
    for picture, count, windows in zip(
        estimate.picture, estimate.count.tolist(), boxes, strict=True
    ):
        pixels = _enlarged(picture, scale).permute(1, 2, 0).mul(255).byte().cpu().numpy()
        drawn = Image.fromarray(pixels)
        pen = ImageDraw.Draw(drawn)
        for step, (left, top, width, height) in enumerate(windows[:count]):
            box = [scale * v for v in (left, top, left + width, top + height)]
            pen.rectangle(box, outline=COLOURS[min(step, len(COLOURS) - 1)])
        below.append(torch.from_numpy(np.array(drawn)).permute(2, 0, 1).float().div(255.0))
    return torch.cat([above.cpu(), torch.cat(below, dim=2)], dim=1)


def save_panel(panel: Tensor, path: Path) -> None:
    """Writes a picture `[3, h, w]` in [0, 1] as PNG."""
    pixels = panel.clamp(0, 1).mul(255).byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(path, optimize=True)


def _enlarged(image: Tensor, scale: int) -> Tensor:
    """One image `[channels, side, side]` as colours in [0, 1], every px repeated."""
    grown = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    grown[:, -1, :] = grown[:, :, -1] = EDGE
    return grown.clamp(0.0, 1.0).expand(3, -1, -1)

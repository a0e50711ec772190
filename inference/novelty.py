"""Whether a picture is one that a model knows: what its answer leaves unexplained, and its doubt.

A mean over all pixels does not see a small foreign object. It leaves one place of the picture
unexplained, so the worst place counts: of the difference from the inferred scene, drawn again, the
block in which most is left. Both are blurred before, by more than what sensor noise and the way in
which edges are drawn reach, and exposure is allowed for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from inference.estimate import Estimate
from inference.likelihood import blurred

BLUR = 2.0  # px
SIDE, STRIDE = 9, 2  # px, of the blocks
SIZE = 128  # px, the height of pictures that these are for
# Difference in any colour channel from which on a pixel is not explained: 25 grey levels,
# well above a camera's noise and well below most objects on most tables.
RESIDUAL = 0.1
EXPOSURES = (0.8, 1.25)  # how much brighter a picture may be than what is drawn of it

Limit = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Limits(BaseModel):
    """What pictures of the model's own world stay below, all but about one in a hundred."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    block: Limit  # mean over the worst block of squared differences, summed over colours
    doubt: Limit  # nats

    def novelty(self, block: Tensor, doubt: Tensor) -> Tensor:
        """How far pictures are on their way to being unknown, `[B]`: above 1 they are.

        Args:
            block: `[B]`, by `worst_block`.
            doubt: `[B]`, by `doubt_of`.
        """
        return torch.maximum(block / self.block, doubt / self.doubt)


def worst_block(image: Tensor, picture: Tensor) -> Tensor:
    """What images leave unexplained where it is most, `[B]` squared grey levels of 1.

    Args:
        image: `[B, 3, H, W]` in [0, 1].
        picture: of the inferred scenes, the same shape.
    """
    exposure = (_product(image, picture) / _product(picture, picture).clamp_min(1e-6)).clamp(
        *EXPOSURES
    )
    scale = image.shape[-2] / SIZE
    left = blurred(image / exposure[:, None, None, None] - picture, BLUR * scale)
    errors = left.square().sum(dim=1)
    side = max(1, min(round(SIDE * scale), *image.shape[-2:]))
    stride = max(1, round(STRIDE * scale))
    # A matrix for each axis, as for the blur: five times as fast as pooling.
    rows, columns = (_blocks(n, side, stride, errors.dtype).to(errors) for n in errors.shape[-2:])
    return (rows @ errors @ columns.T).flatten(1).amax(dim=1)


@lru_cache(maxsize=64)
def _blocks(pixels: int, side: int, stride: int, dtype: torch.dtype) -> Tensor:
    """What each block along an axis takes of each pixel: `[blocks, pixels]`, a mean."""
    start = torch.arange(0, pixels - side + 1, stride)[:, None]
    pixel = torch.arange(pixels)
    return ((start <= pixel) & (pixel < start + side)).to(dtype) / side


def _product(one: Tensor, other: Tensor) -> Tensor:
    """Sums of products of all pixels and colours, `[B]`."""
    return torch.linalg.vecdot(one.flatten(1), other.flatten(1))


def mean_error(image: Tensor, picture: Tensor) -> Tensor:
    """Mean squared difference of all pixels and colours, `[B]`."""
    difference = image - picture
    return _product(difference, difference) / difference[0].numel()


def explained(image: Tensor, picture: Tensor, table: Tensor, occupied: Tensor) -> Tensor:
    """Which part of images scenes explain, `[B]` from 0 to 1.

    With objects it is the share of what sets the image `x` apart from the empty table that the
    picture explains, 1 - |x - picture|^2 / |x - empty table|^2, cut off to [0, 1]. Without objects
    it is the share of pixels that look like the empty table, to within RESIDUAL.

    Args:
        image: `[B, 3, H, W]` in [0, 1].
        picture: of the inferred scenes.
        table: of the same scenes without objects.
        occupied: `[B]` bool, whether there are objects.
    """
    error, left = (mean_error(image, other) for other in (picture, table))
    # Where even an empty table is the picture itself, there was nothing for objects to explain.
    share = torch.where(left > 0.0, 1.0 - error / left.clamp_min(1e-12), 0.0).clamp(0.0, 1.0)
    if bool(occupied.all()):
        return share
    alike = ((image - picture).abs().amax(1) <= RESIDUAL).float().mean((1, 2))
    return share.where(occupied, alike)


def doubt_of(estimate: Estimate) -> Tensor:
    """Entropy of the number of objects and of the classes of those that are there, `[B]` nats."""
    classes = _entropy(estimate.class_probabilities).where(estimate.scene.presence, 0.0)
    return _entropy(estimate.count_probabilities) + classes.sum(dim=1)


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities.clamp_min(0.0)).sum(dim=-1)

"""Pictures that show what a model inferred."""

from __future__ import annotations

import torch
from torch import Tensor


def comparison_panel(image: Tensor, rendered: Tensor) -> Tensor:
    """A row of pictures above the same scenes re-rendered: `[3, 2 H, B W]`.

    Args:
        image: `[B, 3, H, W]` in [0, 1].
        rendered: likewise, drawn from what was inferred.
    """
    return torch.cat([torch.cat(list(row), dim=2) for row in (image, rendered)], dim=1)

"""Images of exactly two digits of which one knows the sum and the order (section 3.1.2).

Digits are in the order in which one reads: from left to right, by the middles of what they cover,
and of two right above each other the upper one first. They ascend if the first is the smaller one;
two that are the same do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.digits import Split, read_digits, read_labels
from training.pictures import PictureData, compose_digits, image_numbers

SUMS = 19  # from 0 + 0 to 9 + 9


@dataclass(frozen=True)
class Pairs:
    """n images of two digits."""

    image: Tensor  # [n, 1, 50, 50] uint8
    total: Tensor  # [n] int64, the sum
    ascends: Tensor  # [n] int64: 1 if the first digit is the smaller one


def make_pairs(data: PictureData, split: Split) -> Pairs:
    """Makes images of two digits.

    Args:
        data: their form, how many, and the seed; the counts are two, whatever it says.
        split: whose digits they show.

    Raises:
        ValueError: the images of that form show no digits.
        DataError: MNIST is not there.
    """
    if data.form not in ("separate-digits", "shrunk-digits"):
        raise ValueError(f"images of the form {data.form} show no digits that add up")
    data = data.model_copy(update={"counts": (2,)})
    composed = compose_digits(data, read_digits(split), image_numbers(data, split))
    value = read_labels(split)
    read = [
        [value[digit.which] for digit in sorted(placed, key=lambda digit: (digit.x, digit.y))]
        for placed in composed.placed
    ]
    first, second = torch.from_numpy(np.array(read)).unbind(1)
    return Pairs(torch.from_numpy(composed.image[:, None]), first + second, (first < second).long())

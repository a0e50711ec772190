"""How a network came to its answer: where each step looked, and whether it expected anything."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Scan(NamedTuple):
    """The K steps of the inference of B pictures, each step told what the ones before found."""

    presence: Tensor  # [B, K] probability of z_pres = 1, given that it was 1 at all steps before
    attention: Tensor  # [B, K, R, C] of R rows and C columns of cells of the picture; sums to 1

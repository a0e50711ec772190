"""The orders in which the objects of a scene can be explained.

The posterior describes objects one after another, the scene has no order (section 2.1, Symmetry):
its density is the sum over all orders, n! of them for n objects.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Orders(NamedTuple):
    """One row for each order of each picture's objects."""

    picture: Tensor  # [R] int64, the picture that the row belongs to
    order: Tensor  # [R, K] int64, slots in the order in which they are explained
    log_weight: Tensor  # [R] log of how many orders the row stands for

    def logsumexp(self, values: Tensor, pictures: int) -> Tensor:
        """Log of the weighted sum of exp(values `[R]`) over each picture's rows: `[pictures]`."""
        rows_of = torch.bincount(self.picture, minlength=pictures)
        first = rows_of.cumsum(0) - rows_of
        column = torch.arange(len(values), device=values.device) - first[self.picture]
        table = values.new_full((pictures, int(rows_of.max())), -math.inf)
        table = table.index_put((self.picture, column), values + self.log_weight)
        return table.logsumexp(1)


def given_order(pictures: int, slots: int, *, device: torch.device) -> Orders:
    """One row a picture: its objects in the order of their slots."""
    picture = torch.arange(pictures, device=device)
    order = torch.arange(slots, device=device).expand(pictures, -1)
    return Orders(picture, order, torch.zeros(pictures, device=device))


@lru_cache
def permutations(count: int, slots: int) -> Tensor:
    """All orders of the first `count` of `slots` slots; the others stay behind: `[count!, K]`."""
    rest = tuple(range(count, slots))
    return torch.tensor([p + rest for p in itertools.permutations(range(count))]).view(-1, slots)


def orders_of(
    counts: Tensor, slots: int, *, limit: int, generator: torch.Generator | None = None
) -> Orders:
    """All orders of each picture's objects, or a random `limit` of them where there are more.

    With a random subset the sum over orders is estimated without bias, its logarithm from below.

    Args:
        counts: `[B]` int64, objects of each picture.
        slots: K.
        limit: greatest number of orders a picture.
        generator: chooses the subset.
    """
    pictures, orders, weights = [], [], []
    for picture, count in enumerate(counts.tolist()):
        total = math.factorial(count)
        if total <= limit:
            chosen = permutations(count, slots)
        else:
            random = torch.rand(limit, count, generator=generator).argsort(1)
            rest = torch.arange(count, slots).expand(limit, -1)
            chosen = torch.cat([random, rest], dim=1)
        pictures.append(torch.full((len(chosen),), picture))
        orders.append(chosen)
        weights.append(torch.full((len(chosen),), math.log(total / len(chosen))))
    device = counts.device
    return Orders(
        torch.cat(pictures).to(device), torch.cat(orders).to(device), torch.cat(weights).to(device)
    )

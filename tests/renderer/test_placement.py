"""Footprints that meet and footprints that do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from renderer.placement import acceptance, draw_identities, draw_poses, overlaps, stack_footprints

# A bar along its x axis of three discs, and a single disc.
BAR = torch.tensor([[-0.1, 0.0, 0.05], [0.0, 0.0, 0.05], [0.1, 0.0, 0.05]])
DISC = torch.tensor([[0.0, 0.0, 0.1]])
FOOTPRINTS = stack_footprints([BAR, DISC])


def slowly(presence: Tensor, identity: Tensor, position: Tensor, yaw: Tensor) -> bool:
    """Whether one scene's objects overlap, disc by disc."""
    discs = []
    for k in range(len(presence)):
        cos, sin = math.cos(yaw[k]), math.sin(yaw[k])
        own = [BAR, DISC][int(identity[k])].tolist() if presence[k] else []
        x0, y0 = position[k].tolist()
        discs.append([(x0 + cos * x - sin * y, y0 + sin * x + cos * y, r) for x, y, r in own])
    return any(
        math.dist(a[:2], b[:2]) < a[2] + b[2]
        for i in range(len(discs))
        for j in range(i)
        for a in discs[i]
        for b in discs[j]
    )


def test_against_the_slow_twin() -> None:
    generator = torch.Generator().manual_seed(0)
    identity = draw_identities(4, 300, 2, True, generator)
    position, yaw = draw_poses(4, 300, (0.4, 0.3), generator)
    presence = torch.rand(300, 4, generator=generator) < 0.7
    found = overlaps(FOOTPRINTS, presence, identity, position, yaw)
    expected = [slowly(*scene) for scene in zip(presence, identity, position, yaw, strict=True)]
    assert found.tolist() == expected
    assert 0.2 < found.float().mean() < 0.8


@pytest.mark.parametrize(("yaw", "overlap"), [(0.0, True), (90.0, False), (180.0, True)])
def test_turning_brings_things_together(yaw: float, overlap: bool) -> None:
    position = torch.tensor([[[0.0, 0.0], [0.2, 0.0]]])
    turned = torch.tensor([[math.radians(yaw), 0.0]])
    both = torch.ones(1, 2, dtype=torch.bool)
    found = overlaps(FOOTPRINTS, both, torch.tensor([[0, 1]]), position, turned)
    assert found.tolist() == [overlap]


def test_acceptance_of_two_discs_in_closed_form() -> None:
    # Two points in a square of side 1 lie within d of each other with probability
    # pi d^2 - 8/3 d^3 + d^4 / 2 (d <= 1).
    d = 0.2
    closed = 1 - (math.pi * d**2 - 8 / 3 * d**3 + d**4 / 2)
    found = acceptance(stack_footprints([DISC]), (0.5, 0.5), 2, True)
    assert found == pytest.approx(closed, abs=4 * math.sqrt(closed * (1 - closed) / 100_000))
    assert acceptance(FOOTPRINTS, (0.5, 0.5), 1, True) == 1.0


def test_identities_without_repeats_are_all_different() -> None:
    identity = draw_identities(3, 200, 4, False, torch.Generator().manual_seed(0))
    assert all(len(set(row)) == 3 for row in identity.tolist())
    assert set(identity.flatten().tolist()) == {0, 1, 2, 3}

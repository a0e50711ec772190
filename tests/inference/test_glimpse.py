"""Reading and writing windows against `grid_sample`, which goes the slow way, pixel by pixel."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from inference.glimpse import corners, read, write

SIDE, WINDOW, CHANNELS = 20, 12, 2


def read_slowly(image: Tensor, where: Tensor, window: int) -> Tensor:
    """A window pixel at u is at u * side + centre on the canvas."""
    log_side, x, y = where.unbind(-1)
    return _sample(image, log_side.exp(), x, y, window)


def write_slowly(glimpse: Tensor, where: Tensor, side: int) -> Tensor:
    """A canvas pixel at p is at (p - centre) / side in the window."""
    log_side, x, y = where.unbind(-1)
    extent = log_side.exp()
    return _sample(glimpse, 1 / extent, -x / extent, -y / extent, side)


def _sample(image: Tensor, scale: Tensor, x: Tensor, y: Tensor, side: int) -> Tensor:
    none = torch.zeros_like(scale)
    matrix = torch.stack([scale, none, x, none, scale, y], dim=-1).unflatten(-1, (2, 3))
    size = [len(image), image.shape[1], side, side]
    grid = functional.affine_grid(matrix, size, align_corners=False)
    return functional.grid_sample(image, grid, align_corners=False)


@pytest.fixture
def where(generator: torch.Generator) -> Tensor:
    """Windows small and large, in the middle, over the edge and far outside."""
    drawn = torch.randn(200, 3, dtype=torch.float64, generator=generator)
    return drawn * torch.tensor([0.6, 0.8, 0.8]) - torch.tensor([0.7, 0.0, 0.0])


@pytest.mark.parametrize("way", ["read", "write"])
def test_windows_are_those_of_grid_sample_forward_and_backward(
    way: str, where: Tensor, generator: torch.Generator
) -> None:
    fast, slow, given, made = {
        "read": (read, read_slowly, SIDE, WINDOW),
        "write": (write, write_slowly, WINDOW, SIDE),
    }[way]
    shape = (len(where), CHANNELS, given, given)
    image = torch.rand(shape, dtype=torch.float64, generator=generator)
    weights = torch.randn(
        len(where), CHANNELS, made, made, dtype=torch.float64, generator=generator
    )
    results = []
    for function in (fast, slow):
        inputs = [image.clone().requires_grad_(), where.clone().requires_grad_()]
        found = function(*inputs, made)
        results.append((found, *torch.autograd.grad((weights * found).sum(), inputs)))
    assert results[0][0].abs().amax() > 0.5  # some windows lie on the canvas
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_corners_hold_all_that_is_written() -> None:
    where = torch.tensor([[-1.2, 0.3, -0.4], [-0.5, 0.0, 0.5]])
    canvas = write(torch.ones(2, 1, WINDOW, WINDOW), where, 100)
    for drawn, (left, top, width, height) in zip(
        canvas[:, 0], corners(where, 100).tolist(), strict=True
    ):
        rows, columns = (drawn.amax(axis) > 0.5 for axis in (1, 0))
        assert width == height
        # A pixel counts as covered when its centre is; centres are half a pixel from the corner.
        for covered, start in ((rows, top), (columns, left)):
            places = covered.nonzero()[:, 0].float() + 0.5
            assert abs(places.min() - max(start, 0) - 0.5) <= 0.51
            assert abs(min(start + width, 100) - places.max() - 0.5) <= 0.51

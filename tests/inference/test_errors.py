"""The law of errors against samples of itself, and its quantiles against its distribution."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from inference.errors import LEVELS, ONE_SIGMA, ErrorLaw

N = 200_000


def law(
    core: float,
    tails: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0),
    lost: float = 0.0,
    around: float = 1.0,
) -> ErrorLaw:
    return ErrorLaw(*(torch.tensor([value]) for value in (core, *tails, lost, around)))


def widths_of(law: ErrorLaw, generator: torch.Generator) -> Tensor:
    """Of the normals that errors are drawn from."""
    chance = torch.rand(N, generator=generator)
    wider = law.core * law.factor
    width = torch.where(chance < law.share + law.rare, wider, law.core)
    return torch.where(chance < law.rare, wider * law.far, width)


def drawn(law: ErrorLaw, order: int, generator: torch.Generator) -> Tensor:
    """Absolute errors of angles, by the story that the law tells."""
    half = math.pi / order
    width = widths_of(law, generator)
    error = width * torch.randn(N, generator=generator)
    flip = half + law.around * torch.randn(N, generator=generator)
    error = torch.where(torch.rand(N, generator=generator) < law.lost, flip, error)
    return (torch.remainder(error + half, 2 * half) - half).abs()


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize(
    "parts",
    [(0.01, (0.2, 2.0, 0.05, 3.0), 0.03, 0.4), (0.7, (0.2, 2.0, 0.0, 1.0), 0.3, 0.2)],
)
def test_probability_of_a_turn_is_how_often_it_is_drawn(
    order: int, parts: tuple[Any, ...], generator: torch.Generator
) -> None:
    model = law(*parts)
    errors = drawn(model, order, generator)
    for x in (0.2, 1.0, 3.0):
        x = min(x * parts[0], 0.99 * math.pi / order)
        share = float((errors <= x).float().mean())
        assert float(model.within_turn(torch.tensor([x]), order)) == pytest.approx(share, abs=0.005)
    assert float(model.within_turn(torch.tensor([math.pi / order]), order)) == pytest.approx(
        1.0, abs=1e-3
    )


@pytest.mark.parametrize("order", [1, 3])
def test_intervals_hold_as_much_as_they_say(order: int) -> None:
    core = torch.logspace(-6, 1, 30)
    ones = torch.ones_like(core)
    shape = (0.1, 2.0, 0.03, 3.0, 0.07, 0.5)
    model = ErrorLaw(core, *(value * ones for value in shape))
    widths = model.turn(LEVELS, order)
    assert (widths.diff(dim=-1) > 0).all() and (widths <= math.pi / order + 1e-6).all()
    for level, width in zip(LEVELS, widths.T, strict=True):
        held = model.within_turn(width, order)
        torch.testing.assert_close(held, torch.full_like(held, level), atol=4e-3, rtol=0)


def test_ellipses_hold_as_much_as_they_say(generator: torch.Generator) -> None:
    model = law(0.8, (0.15, 2.0, 0.05, 2.5))
    width = widths_of(model, generator)
    distance = (width[:, None] * torch.randn(N, 2, generator=generator)).norm(dim=1)
    for level in LEVELS:
        edge = model.ellipse((level,))[..., 0]
        assert float(model.within_ellipse(edge)) == pytest.approx(level, abs=1e-4)
        assert float((distance <= edge).float().mean()) == pytest.approx(level, abs=0.004)


def test_a_gaussian_has_the_intervals_of_a_gaussian() -> None:
    model = ErrorLaw.normal(torch.tensor([1e-3, 0.02]))
    widths = model.turn((0.5, ONE_SIGMA, 0.95))
    expected = torch.tensor([[0.67449, 1.0, 1.95996]]) * torch.tensor([[1e-3], [0.02]])
    torch.testing.assert_close(widths, expected, rtol=5e-3, atol=0)


def test_what_is_not_known_at_all_is_uniform() -> None:
    model = ErrorLaw.normal(torch.tensor([math.inf]))
    widths = model.turn((0.25, 0.5, 0.9), 2.0)
    torch.testing.assert_close(
        widths, math.pi / 2 * torch.tensor([[0.25, 0.5, 0.9]]), rtol=2e-3, atol=0
    )


@pytest.mark.parametrize("plane", [False, True])
def test_the_density_is_the_slope_of_the_distribution(plane: bool) -> None:
    model = ErrorLaw(
        *(value.double() for value in law(0.3, (0.2, 2.0, 0.05, 2.0), 0.0 if plane else 0.2, 0.6))
    )
    x = torch.linspace(0.05, 2.5, 40, dtype=torch.float64)[:, None]
    step = 1e-5
    inside = model.within_ellipse if plane else model.within_turn
    slope = (inside(x + step) - inside(x - step)) / (2 * step)
    density = model.log_density(x, plane=plane).exp() * (x if plane else 1.0)
    ratio = slope / density  # the density is given up to a constant
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)

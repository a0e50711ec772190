"""Derivatives of whole pictures: by windows and by pictures, and as the gradients have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from renderer import Renderer, SceneSpec
from renderer.appearance import draw_appearance
from renderer.backend import WindowRenderer
from renderer.differences import Steps, contract, freedoms, plan
from renderer.differentiable import window_changes
from renderer.jacobian import Drawing, jacobian
from renderer.prior import sample

SIZE = 48


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def drawing(backend: str, open_on: Callable[..., Renderer]) -> Iterator[WindowRenderer]:
    spec = SceneSpec.load("tabletop-varied")
    one = open_on(spec, backend, height=SIZE, width=SIZE, supersample=2)
    assert isinstance(one, WindowRenderer)
    yield one
    one.close()


def whole_pictures(renderer: Renderer) -> Any:
    """The same renderer, without windows."""
    names = ("spec", "height", "width", "device", "render")
    return SimpleNamespace(**{name: getattr(renderer, name) for name in names})


@pytest.mark.parametrize("dressed", [False, True])
def test_windows_give_what_whole_pictures_give(drawing: WindowRenderer, dressed: bool) -> None:
    scene = sample(drawing.spec, 8, generator=seeded()).to(drawing.device)
    looks = draw_appearance(drawing.spec, 8, generator=seeded(1)) if dressed else None
    looks = None if looks is None else looks.to(drawing.device)
    picture = drawing.render(scene, looks)
    found = jacobian(drawing, scene, picture, appearance=looks)
    expected = jacobian(whole_pictures(drawing), scene, picture, appearance=looks)
    assert found.shape == (8, 10, 3, SIZE, SIZE)
    assert float((found - expected).norm() / expected.norm()) < 3e-2
    # What cannot show has no slope, and what can has one.
    free = freedoms(scene, drawing.spec.symmetry_orders)
    sizes = expected.flatten(2).norm(dim=2)
    assert not sizes[~free].any() and (sizes[free] > 0).float().mean() > 0.95


@pytest.mark.parametrize("scheme", ["forward", "central"])
def test_slopes_are_what_gradients_are_made_of(drawing: WindowRenderer, scheme: Any) -> None:
    scene = sample(drawing.spec, 6, generator=seeded(2)).to(drawing.device)
    picture = drawing.render(scene)
    upstream = torch.randn(picture.shape, generator=seeded()).to(picture)
    slopes = jacobian(drawing, scene, picture, scheme=scheme)
    found = (slopes * upstream[:, None]).sum(dim=(2, 3, 4))
    steps = Steps.for_size(drawing.spec, SIZE)
    moves = plan(freedoms(scene, drawing.spec.symmetry_orders), steps, scheme)
    changes = window_changes(drawing, scene, moves, picture, upstream)
    position, yaw, azimuth = contract(moves, changes, 6, scene.slots)
    expected = torch.cat([position.flatten(1), yaw, azimuth[:, None]], dim=1)
    assert float((found - expected).norm() / expected.norm()) < 1e-2


def test_only_what_is_wanted_is_drawn(drawing: WindowRenderer) -> None:
    scene = sample(drawing.spec, 6, generator=seeded(3)).to(drawing.device)
    picture = drawing.render(scene)
    wanted = torch.rand(6, 10, generator=seeded()).to(drawing.device) < 0.4
    whole = torch.ones_like(wanted)
    found = Drawing(drawing).jacobian(scene, picture, wanted)
    expected = Drawing(drawing).jacobian(scene, picture, whole) * wanted[..., None, None, None]
    assert not found[~wanted].any()
    assert float((found - expected).norm() / expected.norm()) < 2e-2


def test_a_camera_that_does_not_move_has_no_slope(open_on: Callable[..., Renderer]) -> None:
    spec = SceneSpec.load("tabletop-fixed")
    one = open_on(spec, "raycast", height=32, width=32)
    scene = sample(spec, 3, generator=seeded())
    assert not jacobian(one, scene, one.render(scene))[:, -1].any()
    one.close()

"""Windows hold all that a move changes, and are drawn as whole pictures are."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import renderer.opengl
import renderer.raycast
from renderer import differentiable
from renderer.appearance import Appearance
from renderer.backend import BackendError, Renderer, WindowRenderer, open_renderer
from renderer.differences import Differences, Scheme, Steps, freedoms, perturb, plan
from renderer.differentiable import differentiable_render, picture_changes, window_changes
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec
from renderer.windows import (
    Pixels,
    change_windows,
    object_boxes,
    pack,
    prism,
    tile_windows,
    tiled_index,
    windows_of,
)

SIZE = 40  # px
# All shapes, crowded: they hide each other, and reach over the table's edge.
CROWD: dict[str, Any] = {
    "name": "crowd",
    "table": {"half_size": [0.4, 0.4], "colour": [0.5, 0.4, 0.3]},
    "camera": {
        "target": [0.05, -0.02, 0.03], "distance": 1.2, "elevation_deg": 30, "fovy_deg": 40,
        "azimuth_deg": [-180, 180],
    },
    "objects": [
        {"name": "cup", "mesh": "meshes/cup.obj", "colour": [0.9, 0.3, 0.2], "symmetry": "none"},
        {"name": "pan", "mesh": "meshes/pan.obj", "colour": [0.2, 0.2, 0.9], "symmetry": "none"},
        {"name": "brick", "shape": "box", "size": [0.12, 0.03, 0.05], "colour": [0.2, 0.8, 0.1]},
        {"name": "ball", "shape": "sphere", "size": [0.05], "colour": [1, 1, 0.2],
         "symmetry": "continuous"},
        {"name": "post", "shape": "cylinder", "size": [0.04, 0.1], "colour": [1, 1, 1],
         "texture": "textures/stripes.png"},
    ],
    "count": {"max": 4},
    "placement": {"extent": [0.4, 0.4], "no_overlap": False},
    "background": [0.1, 0.2, 0.4],
}  # fmt: skip


@functools.cache
def crowd() -> SceneSpec:
    return SceneSpec.build(CROWD)


@functools.cache
def drawing(backend: str, name: str = "crowd", supersample: int = 2) -> Renderer:
    spec = crowd() if name == "crowd" else SceneSpec.load(name)
    backend, _, device = backend.partition("-")
    size = {"height": SIZE, "width": SIZE, "supersample": supersample}
    try:
        return open_renderer(spec, backend=backend, device=device or "cpu", **size)
    except BackendError as error:
        pytest.skip(str(error))


def crowded(n: int, *, seed: int = 0, spread: float = 1.3) -> Scene:
    """Scenes with any number of objects, some out of view; absent slots hold nonsense."""
    generator = torch.Generator().manual_seed(seed)
    scene = sample(crowd(), n, generator=generator)
    azimuth = 2 * math.pi * torch.rand(n, generator=generator) - math.pi
    absent = ~scene.presence
    return Scene(
        scene.presence,
        scene.identity.masked_fill(absent, 99),
        (spread * scene.position).masked_fill(absent[..., None], 1e3),
        scene.yaw.masked_fill(absent, math.nan),
        azimuth,
    )


def random_windows(n: int, size: int, *, seed: int = 0) -> Tensor:
    """Windows of all sizes, at all borders, the whole picture and nothing among them."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(-4, size + 5, (n, 2, 2), generator=generator).clamp(0, size).sort(1).values
    windows = torch.cat([ends[:, 0], ends[:, 1] - ends[:, 0]], dim=1)
    windows[0] = torch.tensor([0, 0, size, size])
    windows[1] = torch.tensor([size - 1, 0, 1, size])
    windows[2] = torch.tensor([size, size, 0, 0])
    windows[3] = torch.tensor([7, 9, 1, 1])
    return windows


def crops(pictures: Tensor, windows: Tensor) -> Tensor:
    """Windows cut out of pictures `[N, 3, H, W]`, packed; the obvious way."""
    parts = [
        picture[:, y : y + h, x : x + w].permute(1, 2, 0).reshape(-1, 3)
        for picture, (x, y, w, h) in zip(pictures, windows.tolist(), strict=True)
    ]
    return torch.cat(parts)


def moves_of(
    spec: SceneSpec, scene: Scene, *, factor: float = 1.0, scheme: Scheme = "central"
) -> tuple[Differences, Scene]:
    differences = plan(
        freedoms(scene, spec.symmetry_orders), Steps.for_size(spec, SIZE).scaled(factor), scheme
    )
    return differences, perturb(scene, differences)


# --- Arithmetic.


@pytest.mark.parametrize("index", range(5), ids=[item["name"] for item in CROWD["objects"]])
def test_prisms_hold_their_class_tightly(index: int) -> None:
    geometry = crowd().geometries[index]
    corners = prism(geometry)
    angle = torch.linspace(0, 2 * math.pi, 97, dtype=torch.float64)
    direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
    if geometry.mesh is not None:
        outline = torch.tensor(geometry.mesh.vertices)[:, :2]
        reach = (direction @ outline.T).amax(1)
    elif geometry.symmetries == (0,):
        reach = torch.full((97,), float(geometry.footprint[0, 2]), dtype=torch.float64)
    else:
        reach = direction.abs() @ torch.tensor(geometry.upper[:2], dtype=torch.float64)
    around = (direction @ corners[:, :2].T).amax(1)
    assert (around >= reach - 1e-7).all()
    assert (around <= reach + 0.05 * reach.max()).all()
    low, high = corners[:, 2].unique().tolist()
    assert (low, high) == pytest.approx((geometry.lower[2], geometry.upper[2]), abs=1e-7)


def test_boxes_without_an_object_or_without_bounds() -> None:
    scene = crowded(40)
    boxes = object_boxes(crowd(), scene, SIZE, SIZE)
    assert not boxes.isnan().any()
    inf = math.inf
    absent = torch.tensor([inf, inf, -inf, -inf])
    assert (boxes[~scene.presence] == absent).all()
    assert (boxes[scene.presence].isfinite()).all()
    # Behind the camera.
    x, y = math.sin(0.5), -math.cos(0.5)
    behind = dataclasses.replace(
        scene[scene.count > 0],
        position=torch.tensor([x, y]).expand_as(scene.position[scene.count > 0]) * 3,
        azimuth=torch.full_like(scene.azimuth[scene.count > 0], 0.5),
    )
    around = object_boxes(crowd(), behind, SIZE, SIZE)[:, 0]
    assert (around == torch.tensor([-inf, -inf, inf, inf])).all()
    assert windows_of(around, 20, 30).unique(dim=0).tolist() == [[0, 0, 30, 20]]


def test_windows_are_cut_off_at_the_border() -> None:
    inf = math.inf
    boxes = torch.tensor(
        [
            *([2.5, 3.5, 4.5, 8.05], [-3.0, 5.0, 2.5, 90.0]),  # the second reaches out of view
            *([-9.0, 3.0, -2.0, 5.0], [3.0, 50.0, 5.0, 60.0]),  # beside and below the picture
            [inf, inf, -inf, -inf],
        ]
    )
    found = windows_of(boxes, 20, 30)
    assert found[:2].tolist() == [[2, 3, 3, 6], [0, 4, 3, 16]]
    assert not found[2:, 2:].any()


def test_packed_pixels_are_in_order() -> None:
    windows = random_windows(30, 12)
    grid = torch.stack(torch.meshgrid([torch.arange(12.0)] * 2, indexing="xy"))
    index = torch.arange(30.0)[:, None, None, None].expand(30, 1, 12, 12)
    expected = crops(torch.cat([index, grid.expand(30, 2, 12, 12)], dim=1), windows)
    pixels = Pixels.of(windows)
    assert torch.equal(torch.stack([pixels.window, pixels.x, pixels.y], dim=1).float(), expected)
    assert len(Pixels.of(windows[:0]).window) == 0


@pytest.mark.parametrize("side", [1, 3, 4])
def test_tiles_cover_their_windows(side: int) -> None:
    windows = random_windows(30, 12)
    tile_of, left, top = tile_windows(windows, side)
    # Every tile as a picture of its pixels' places.
    offset = torch.arange(side)
    x = (left[:, None, None] + offset).expand(-1, side, side)
    y = (top[:, None, None] + offset[:, None]).expand(-1, side, side)
    window = tile_of[:, None, None].expand(-1, side, side)
    index, pixels = tiled_index(windows, side), Pixels.of(windows)
    for tiled, packed in ((window, pixels.window), (x, pixels.x), (y, pixels.y)):
        assert torch.equal(tiled.reshape(-1)[index], packed)


def test_packed_rectangles_do_not_meet() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(int(w), int(h)) for w, h in torch.randint(0, 21, (200, 2), generator=generator)]
    places = pack(sizes, 50, 20)
    taken = torch.zeros(1 + max(page for page, _, _ in places), 20, 50, dtype=torch.int64)
    for (width, height), (page, x, y) in zip(sizes, places, strict=True):
        assert x + width <= 50 and y + height <= 20
        taken[page, y : y + height, x : x + width] += 1
    assert taken.max() == 1
    assert taken.float().mean() > 0.6


# --- Pictures.


@pytest.mark.parametrize(("scheme", "factor"), [("central", 1.0), ("forward", 5.0)])
def test_nothing_changes_outside_of_windows(backend: str, scheme: Scheme, factor: float) -> None:
    renderer, scene = drawing(backend), crowded(16, seed=1)
    differences, moved = moves_of(crowd(), scene, factor=factor, scheme=scheme)
    windows = change_windows(crowd(), scene, differences, moved, SIZE, SIZE)
    # Before and after at the same place of a batch, so that both are rounded alike.
    before, after = (renderer.render(part).cpu() for part in (scene[differences.row], moved))
    changed = (before != after).any(dim=1)
    inside = torch.zeros_like(changed)
    pixels = Pixels.of(windows)
    inside[pixels.window, pixels.y, pixels.x] = True
    assert not (changed & ~inside).any()
    of_object = differences.freedom < 3 * scene.slots
    assert (windows[~of_object] == torch.tensor([0, 0, SIZE, SIZE])).all()
    shows = changed.flatten(1).any(1) & of_object
    assert shows.sum() > 0.3 * of_object.sum()
    if factor == 1.0:  # and not much too wide
        area = windows[shows, 2:].prod(1).float()
        assert area.mean() < 0.15 * SIZE**2
        assert changed[shows].flatten(1).sum(1).float().mean() > 0.2 * area.mean()


def assert_same_pixels(found: Tensor, expected: Tensor, backend: str) -> None:
    """Equal but for rounding.

    Rays end a grey level apart in a pixel of ten thousand. OpenGL interpolates colours and textures
    from other corners of the window: a grey level in less than one pixel of a hundred, and the
    little more that its rounded edge or texture makes of it in less than three of a thousand.
    """
    assert found.shape == expected.shape and found.dtype == expected.dtype
    off = (255 * (found - expected).abs()).amax(dim=1)
    if backend == "opengl":
        assert (off > 0.5).float().mean() < 1e-2
        assert (off > 1.5).float().mean() < 3e-3
        assert off.max() < 20
    else:
        assert (off > 0.5).float().mean() < 3e-4
        assert off.max() < 1.5


@pytest.mark.parametrize("supersample", [1, 2])
def test_windows_are_crops(backend: str, supersample: int) -> None:
    renderer = drawing(backend, supersample=supersample)
    assert isinstance(renderer, WindowRenderer)
    scene, windows = crowded(60, seed=2, spread=1.0), random_windows(60, SIZE)
    scene, windows = scene.to(renderer.device), windows.to(renderer.device)
    expected = crops(renderer.render(scene), windows)
    found = renderer.render_windows(scene, windows)
    assert found.device == expected.device == renderer.device
    assert expected.std() > 0.1
    assert_same_pixels(found, expected, backend)
    # Whole pictures are as they were, and the same windows the same again.
    assert torch.equal(crops(renderer.render(scene), windows), expected)
    assert torch.equal(renderer.render_windows(scene, windows), found)


def test_nothing_to_draw(backend: str) -> None:
    renderer = drawing(backend)
    assert isinstance(renderer, WindowRenderer)
    scene = crowded(3)
    empty = torch.tensor([[5, 5, 0, 0], [0, 0, 0, 9], [40, 3, 0, 0]])
    for part in (scene, scene[:0]):
        pixels = renderer.render_windows(part, empty[: len(part)])
        assert pixels.shape == (0, 3) and pixels.dtype == torch.float32


def test_several_pages_and_launches(
    backend: str, open_on: Callable[..., Renderer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer.opengl, "FRAMEBUFFER", 64)
    monkeypatch.setattr(renderer.raycast, "TILE_BATCHES", {"cpu": (32, 8), "cuda": (32, 8)})
    drawn = open_on(crowd(), backend, height=24, width=32)
    assert isinstance(drawn, WindowRenderer)
    scene, windows = crowded(40, seed=3), random_windows(40, 24)
    assert_same_pixels(
        drawn.render_windows(scene, windows), crops(drawn.render(scene), windows), backend
    )


# --- Gradients.


def tracked(scene: Scene) -> Scene:
    leaves = {
        name: getattr(scene, name).clone().requires_grad_()
        for name in ("position", "yaw", "azimuth")
    }
    return dataclasses.replace(scene, **leaves)


@pytest.mark.parametrize("name", ["crowd", "tabletop", "objects"])
def test_changes_are_those_of_whole_pictures(
    backend: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = drawing(backend, name)
    assert isinstance(renderer, WindowRenderer)
    scene = (
        crowded(16, seed=4)
        if name == "crowd"
        else sample(renderer.spec, 16, generator=torch.Generator().manual_seed(4))
    )
    scene = scene.to(renderer.device)
    picture = renderer.render(scene)
    upstream = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0)).to(picture)
    differences, _ = moves_of(renderer.spec, scene)
    expected = picture_changes(renderer, scene, differences, picture, upstream)
    found = window_changes(renderer, scene, differences, picture, upstream)
    # What OpenGL rounds otherwise is an edge's sample or two in a whole window.
    near = 3e-2 if backend == "opengl" else 1e-3
    assert float((found - expected).norm() / expected.norm()) < near
    monkeypatch.setattr(
        differentiable,
        "CHUNK_VALUES",
        dict.fromkeys(differentiable.CHUNK_VALUES, 8 * 3 * SIZE * SIZE),
    )
    in_parts = window_changes(renderer, scene, differences, picture, upstream)
    assert float((in_parts - found).norm() / found.norm()) < near


class WholePictures:
    """A renderer that draws whole pictures only, as other people's may."""

    def __init__(self, inner: Renderer) -> None:
        self.inner, self.spec, self.name = inner, inner.spec, "whole"
        self.height, self.width, self.device = inner.height, inner.width, inner.device

    def render(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        return self.inner.render(scene, appearance)

    def render_bytes(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        return self.inner.render_bytes(scene, appearance)

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize("scheme", get_args(Scheme))
def test_gradient_is_that_of_whole_pictures(backend: str, scheme: Scheme) -> None:
    near = {"raycast": 1e-3, "opengl": 3e-2}[backend]  # but for rounding
    renderer = drawing(backend, "tabletop")
    scene = sample(renderer.spec, 16, generator=torch.Generator().manual_seed(7))
    weight = torch.randn(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    gradients = []
    for drawn in (renderer, WholePictures(renderer)):
        assert isinstance(drawn, WindowRenderer) == (drawn is renderer)
        leaf = tracked(scene)
        generator = torch.Generator().manual_seed(3)
        picture = differentiable_render(drawn, leaf, scheme=scheme, generator=generator)
        (picture * weight.to(picture.device)).sum().backward()
        gradients.append([leaf.position.grad, leaf.yaw.grad, leaf.azimuth.grad])
    for found, expected in zip(*gradients, strict=True):
        assert found is not None and expected is not None
        assert float((found - expected).norm() / expected.norm()) < near
    position, yaw, _ = gradients[0]
    assert position is not None and yaw is not None
    assert not position[~scene.presence].any() and not yaw[~scene.presence].any()


def test_empty_scenes_cost_no_window(backend: str) -> None:
    renderer = drawing(backend, "tabletop")
    leaf = tracked(Scene.empty(3, 3))
    differentiable_render(renderer, leaf).square().sum().backward()
    assert leaf.position.grad is not None and not leaf.position.grad.any()
    assert leaf.azimuth.grad is not None and leaf.azimuth.grad.any()  # the table's edge moves

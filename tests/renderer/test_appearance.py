"""Light, colours and camera of single scenes: what is asked for is what both backends draw."""

from __future__ import annotations

import colorsys
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from renderer import Renderer, Scene, SceneSpec, differentiable_render
from renderer.appearance import Appearance, draw_appearance, hsv_to_rgb
from renderer.backend import WindowRenderer
from renderer.camera import camera_pose
from renderer.differences import Steps, freedoms, perturb, plan
from renderer.differentiable import picture_changes, window_changes
from renderer.light import LIGHT_DIRECTION
from renderer.prior import sample
from renderer.windows import Pixels, change_windows

World = dict[str, Any]
SIZE = 64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    """All that can vary does, and much."""
    data = SceneSpec.load("tabletop-varied").model_dump(mode="json")
    data["nuisance"]["camera_jitter"] = {
        "distance": [-0.3, 0.3],
        "elevation_deg": [-10, 10],
        "tilt_deg": [-5, 5],
        "roll_deg": [-20, 20],
    }
    return SceneSpec.build(data)


@pytest.fixture
def opened(open_on: Callable[..., Renderer]) -> Iterator[Callable[..., WindowRenderer]]:
    """Opens renderers of 64 px, and closes them in the end."""
    renderers: list[Renderer] = []

    def opened(spec: SceneSpec, backend: str, supersample: int = 1) -> WindowRenderer:
        size = {"height": SIZE, "width": SIZE, "supersample": supersample}
        renderers.append(open_on(spec, backend, **size))
        assert isinstance(renderers[-1], WindowRenderer)
        return renderers[-1]

    yield opened
    for one in renderers:
        one.close()


def drawn(spec: SceneSpec, count: int, seed: int = 0) -> tuple[Scene, Appearance]:
    generator = seeded(seed)
    scene = sample(spec, count, generator=generator)
    looks = draw_appearance(spec, count, generator=generator)
    assert looks is not None
    return scene, looks


# --- what is drawn at random -----------------------------------------------------------------


def test_nothing_is_drawn_where_nothing_varies() -> None:
    generator = seeded()
    before = generator.get_state()
    assert draw_appearance(SceneSpec.load("tabletop"), 3, generator=generator) is None
    assert torch.equal(generator.get_state(), before)


def test_what_does_not_vary_is_as_the_spec_says(world: World) -> None:
    world["nuisance"] = {"light": {"strength": [0.5, 0.6]}}
    spec = SceneSpec.build(world)
    looks, usual = draw_appearance(spec, 50), Appearance.neutral(spec, 50)
    assert looks is not None
    for field in dataclasses.fields(Appearance):
        found, expected = getattr(looks, field.name), getattr(usual, field.name)
        if field.name == "light":
            factor = found / expected
            assert 0.5 <= factor.min() < 0.52 and 0.58 < factor.max() <= 0.6
        else:
            torch.testing.assert_close(found, expected)


def test_everything_keeps_to_its_range_and_fills_it(spec: SceneSpec) -> None:
    _, looks = drawn(spec, 4000)
    usual = Appearance.neutral(spec, 1)
    ranges = {
        "light": (looks.light / usual.light, (0.6, 1.4)),
        "headlight": (looks.headlight / usual.headlight, (0.5, 1.5)),
        "ambient": (looks.ambient / usual.ambient, (0.7, 1.3)),
        "distance": (looks.distance, (1.3, 1.9)),
        "elevation": (looks.elevation.rad2deg(), (30, 50)),
        "tilt": (looks.tilt.rad2deg(), (-5, 5)),
        "roll": (looks.roll.rad2deg(), (-20, 20)),
    }
    for name, (values, (least, greatest)) in ranges.items():
        slack = 0.01 * (greatest - least)
        assert least - 1e-4 <= values.min() < least + slack, name
        assert greatest - slack < values.max() <= greatest + 1e-4, name
    direction = torch.tensor(LIGHT_DIRECTION) / math.hypot(*LIGHT_DIRECTION)
    turned = (looks.light_direction @ direction).clamp(-1, 1).acos().rad2deg()
    assert turned.max() <= 40.01 and turned.max() > 39 and turned.min() < 1
    # To all sides alike: leaning cancels out.
    aside = looks.light_direction - (looks.light_direction @ direction)[:, None] * direction
    assert aside.mean(dim=0).norm() < 0.02
    torch.testing.assert_close(looks.light_direction.norm(dim=1), torch.ones(4000))


def test_colours_stray_as_far_as_they_may(spec: SceneSpec) -> None:
    _, looks = drawn(spec, 500)
    spreads = spec.nuisance.colour
    assert spreads is not None and spreads.of_class("pan") != spreads.of_class("cup")
    for c, item in enumerate(spec.objects):
        colours = looks.objects[:, :, c].reshape(-1, 3).tolist()
        found = np.array([colorsys.rgb_to_hsv(*colour) for colour in colours])
        spread, own = spreads.of_class(item.name), np.array(colorsys.rgb_to_hsv(*item.colour))
        offset = found - own
        offset[:, 0] = (offset[:, 0] + 0.5) % 1 - 0.5
        for axis, reach in enumerate((spread.hue_deg / 360, spread.saturation, spread.value)):
            far = np.abs(offset[:, axis])
            assert far.max() <= reach + 1e-3
            # Unless 0 or 1 is in the way.
            free = min(reach, own[axis] if axis else 1, 1 - own[axis] if axis else 1)
            assert far.max() > 0.9 * free
    first, second = looks.objects[:, 0, 0], looks.objects[:, 1, 0]
    assert (first != second).any(dim=1).all()  # two cups in one scene


def test_hues_are_those_of_the_standard_library() -> None:
    hsv = torch.rand(200, 3, generator=seeded(), dtype=torch.float64)
    expected = [colorsys.hsv_to_rgb(*row) for row in hsv.tolist()]
    found = hsv_to_rgb(*hsv.unbind(-1))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


# --- what is drawn with it -------------------------------------------------------------------


@pytest.mark.parametrize("supersample", [1, 2])
def test_neutral_appearances_show_nothing(
    opened: Callable[..., WindowRenderer], backend: str, supersample: int
) -> None:
    spec = SceneSpec.load("tabletop").model_copy(update={"background": (0.3, 0.5, 0.7)})
    drawing = opened(spec, backend, supersample)
    scene = sample(spec, 16, generator=seeded())
    plain = drawing.render_bytes(scene)
    found = drawing.render_bytes(scene, Appearance.neutral(spec, 16))
    off = (plain.int() - found.int()).abs().amax(dim=3)
    # One is rounded sample by sample, the other in the end.
    assert (off > 1).float().mean() < 1e-3
    assert torch.equal(drawing.render_bytes(scene), plain)


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("supersample", [1, 2])
def test_backends_agree_on_appearances(
    spec: SceneSpec, opened: Callable[..., WindowRenderer], rays: str, supersample: int
) -> None:
    scene, looks = drawn(spec, 24)
    drawings = [opened(spec, name, supersample) for name in ("opengl", rays)]
    one, other = (drawing.render_bytes(scene, looks).int() for drawing in drawings)
    off = (one - other).abs().float()
    assert off.mean(dim=(1, 2, 3)).max() < 2.0
    assert np.quantile(off.numpy(), 0.99) <= 4.0
    shuffled = looks[torch.arange(24).roll(1)]
    wrong = (drawings[1].render_bytes(scene, shuffled).int() - one).abs()
    assert wrong.float().mean() > 10


def test_the_table_is_as_bright_as_its_lights_make_it(
    spec: SceneSpec, opened: Callable[..., WindowRenderer], backend: str
) -> None:
    _, looks = drawn(spec, 12)
    scene = Scene.empty(12, 3)
    found = opened(spec, backend).render(scene, looks)[:, :, SIZE // 2, SIZE // 2].cpu()
    _, axes = looks.camera_poses(spec.camera.target, scene.azimuth)
    # Lambert's law, for a table that faces upwards.
    strength = (
        looks.ambient - looks.light * looks.light_direction[:, 2] + looks.headlight * axes[:, 2, 2]
    )
    expected = (looks.table * strength[:, None]).clamp_max(1.0)
    torch.testing.assert_close(found, expected, atol=1.6 / 255, rtol=0)


def test_backgrounds_are_their_own(
    spec: SceneSpec, opened: Callable[..., WindowRenderer], backend: str
) -> None:
    scene, looks = drawn(spec, 12)
    found = opened(spec, backend, 2).render(scene, looks)[:, :, 0, 0].cpu()
    torch.testing.assert_close(found, looks.background, atol=0.51 / 255, rtol=0)


@pytest.mark.parametrize("supersample", [1, 2])
def test_windows_are_crops(
    spec: SceneSpec, opened: Callable[..., WindowRenderer], backend: str, supersample: int
) -> None:
    drawing = opened(spec, backend, supersample)
    scene, looks = drawn(spec, 30)
    low = torch.randint(0, 40, (30, 2), generator=seeded())
    windows = torch.cat([low, torch.randint(0, 24, (30, 2), generator=seeded(1))], dim=1)
    pixels = Pixels.of(windows)
    whole = drawing.render(scene, looks).cpu().permute(0, 2, 3, 1)
    expected = whole[pixels.window, pixels.y, pixels.x]
    found = drawing.render_windows(scene, windows, looks).cpu()
    off = 255 * (found - expected).abs().amax(dim=1)
    assert (off > 0.5).float().mean() < (1e-2 if backend == "opengl" else 3e-4)
    assert (off > 1.5).float().mean() < 3e-3
    # And plain windows are plain again.
    plain = drawing.render(scene).cpu().permute(0, 2, 3, 1)[pixels.window, pixels.y, pixels.x]
    off = 255 * (drawing.render_windows(scene, windows).cpu() - plain).abs().amax(dim=1)
    assert (off > 1.5).float().mean() < 3e-3


def test_appearances_belong_to_scenes_and_slots(
    spec: SceneSpec, opened: Callable[..., WindowRenderer], backend: str
) -> None:
    drawing = opened(spec, backend)
    scene, looks = drawn(spec, 6)
    with pytest.raises(
        ValueError, match="6 scenes of 3 slots got 5 appearances of 3; draw as many"
    ):
        drawing.render(scene, looks[:5])
    few = scene.count <= 1
    narrow = Scene(*(value[few, :1] for value in list(scene.tensors())[:4]), scene.azimuth[few])
    thin = dataclasses.replace(looks[few], objects=looks.objects[few, :1])
    found = drawing.render_bytes(narrow, thin)
    assert torch.equal(found, drawing.render_bytes(scene[few], looks[few]))
    with pytest.raises(
        ValueError, match=r"Appearance\.table has shape \(6, 2\), expected \(6, 3\)"
    ):
        dataclasses.replace(looks, table=looks.table[:, :2])


# --- where the camera is ---------------------------------------------------------------------


def test_neutral_cameras_are_where_the_spec_has_them(spec: SceneSpec) -> None:
    azimuth = torch.tensor([-0.6, 0.0, 0.4], dtype=torch.float64)
    found = Appearance.neutral(spec, 3).camera_poses(spec.camera.target, azimuth)
    for one, expected in zip(found, camera_pose(spec.camera, azimuth), strict=True):
        torch.testing.assert_close(one, expected, atol=1e-6, rtol=0)


def test_cameras_look_past_their_target_by_their_tilt(spec: SceneSpec) -> None:
    azimuth = torch.tensor([0.3, -0.5])
    looks = dataclasses.replace(
        Appearance.neutral(spec, 2),
        distance=torch.tensor([1.2, 2.0]),
        elevation=torch.tensor([0.5, 1.0]),
        tilt=torch.tensor([0.0, 0.1]),
        roll=torch.tensor([0.2, 0.0]),
    )
    position, axes = looks.camera_poses((0.1, 0.2, 0.3), azimuth)
    offset = position - torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(offset.norm(dim=1), looks.distance)
    torch.testing.assert_close(offset[:, 2], looks.distance * looks.elevation.sin())
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6, rtol=0)
    # In the camera's own frame: right, up, backward.
    seen = (-offset[:, None] @ axes)[:, 0] / looks.distance[:, None]
    torch.testing.assert_close(seen[0], torch.tensor([0.0, 0.0, -1.0]), atol=1e-6, rtol=0)
    lower = torch.tensor([0.0, -math.sin(0.1), -math.cos(0.1)])
    torch.testing.assert_close(seen[1], lower, atol=1e-6, rtol=0)
    # Its right side up: what it sees turns clockwise.
    assert float(axes[0, 2, 0]) == pytest.approx(math.sin(0.2) * math.cos(0.5), abs=1e-6)


def test_nothing_changes_outside_of_windows(
    spec: SceneSpec, opened: Callable[..., WindowRenderer], backend: str
) -> None:
    drawing = opened(spec, backend)
    scene, looks = drawn(spec, 16, seed=1)
    moves = plan(
        freedoms(scene, spec.symmetry_orders, azimuth=False),
        Steps.for_size(spec, SIZE),
        "central",
    )
    moved = perturb(scene, moves)
    windows = change_windows(spec, scene, moves, moved, SIZE, SIZE, looks)
    before = drawing.render(scene[moves.row], looks[moves.row])
    changed = (before != drawing.render(moved, looks[moves.row])).any(dim=1).cpu()
    inside = torch.zeros_like(changed)
    pixels = Pixels.of(windows)
    inside[pixels.window, pixels.y, pixels.x] = True
    assert not (changed & ~inside).any()
    assert changed.sum() > 0.15 * inside.sum()


def test_gradients_look_at_the_same_appearance(
    spec: SceneSpec, opened: Callable[..., WindowRenderer], backend: str
) -> None:
    drawing = opened(spec, backend, 2)
    scene, looks = drawn(spec, 12, seed=2)
    scene, looks = scene.to(drawing.device), looks.to(drawing.device)
    moves = plan(freedoms(scene, spec.symmetry_orders), Steps.for_size(spec, SIZE), "forward")
    picture = drawing.render(scene, looks)
    upstream = torch.randn(picture.shape, generator=seeded()).to(picture)
    asked = (drawing, scene, moves, picture, upstream, looks)
    expected, found = picture_changes(*asked), window_changes(*asked)
    assert float((found - expected).norm() / expected.norm()) < 3e-2
    leaf = scene.position.clone().requires_grad_()
    tracked = dataclasses.replace(scene, position=leaf)
    shown = differentiable_render(drawing, tracked, appearance=looks)
    assert torch.equal(shown.detach(), picture)
    (shown * upstream).sum().backward()
    wanted = torch.zeros_like(leaf).flatten(1)
    of_position = moves.freedom < leaf[0].numel()
    index = (moves.row[of_position], moves.freedom[of_position])
    wanted[index] = (moves.weight * found)[of_position].to(wanted)
    assert leaf.grad is not None
    assert float((leaf.grad.flatten(1) - wanted).norm() / wanted.norm()) < 3e-2

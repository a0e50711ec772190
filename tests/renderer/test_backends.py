"""Both backends draw one and the same picture, whatever else is going on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import renderer.choice
import renderer.opengl
from renderer import BackendError, Renderer, Scene, SceneSpec, open_renderer
from renderer.opengl import LARGEST_SUPERSAMPLE, OpenGLRenderer, average_blocks
from renderer.prior import sample

World = dict[str, Any]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def differences(a: Tensor, b: Tensor) -> Tensor:
    """Absolute differences in grey levels."""
    assert a.shape == b.shape
    return (a.int() - b.int()).abs().float()


def assert_alike(a: Tensor, b: Tensor, *, mean: float = 2.0, most: float = 4.0) -> None:
    """Pictures `[B, H, W, 3]` are the same but for a few pixels on edges.

    Args:
        a: pictures.
        b: pictures.
        mean: grey levels, over each picture.
        most: grey levels that 99 % of all values keep to.
    """
    gaps = differences(a, b)
    assert float(gaps.mean(dim=(1, 2, 3)).max()) < mean
    assert np.quantile(gaps.numpy(), 0.99) <= most


def both(draw: Any, rays: str, spec: SceneSpec, scene: Scene, **size: int) -> tuple[Tensor, Tensor]:
    """Pictures by OpenGL and by ray casting."""
    return draw(spec, "opengl", scene, **size), draw(spec, rays, scene, **size)


@pytest.fixture(scope="module")
def tabletop() -> SceneSpec:
    return SceneSpec.load("tabletop")


@pytest.fixture
def checks(tmp_path: Path) -> Path:
    """A picture of 4 x 4 colourful squares."""
    shades = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(shades.repeat(64, 0).repeat(64, 1)).save(tmp_path / "checks.png")
    return tmp_path / "checks.png"


@pytest.fixture
def opened(open_on: Callable[..., Renderer]) -> Iterator[Callable[..., Renderer]]:
    """`open_on`, with everything closed in the end."""
    renderers: list[Renderer] = []

    def opened(spec: SceneSpec, backend: str, *, side: int = 32, **more: Any) -> Renderer:
        renderers.append(open_on(spec, backend, **{"height": side, "width": side, **more}))
        return renderers[-1]

    yield opened
    for one in renderers:
        if isinstance(one, OpenGLRenderer):
            one.close()


# --- one picture, two backends ---------------------------------------------------------------


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("name", ["tabletop", "objects"])
def test_backends_agree(name: str, side: int, draw: Any, rays: str) -> None:
    spec = SceneSpec.load(name)
    scene = Scene.cat([sample(spec, 24, generator=seeded()), Scene.empty(1, spec.count.max)])
    assert_alike(*both(draw, rays, spec, scene, height=side, width=side))
    assert scene.count.min() == 0 and scene.count.max() == spec.count.max


@pytest.mark.usefixtures("opengl")
def test_backends_agree_on_the_edge_of_the_picture(
    tabletop: SceneSpec, draw: Any, rays: str
) -> None:
    data = tabletop.model_dump(mode="json")
    data["camera"]["distance"] = 1.0
    spec = SceneSpec.build(data)
    # Two of a class a scene, at the left and at the right, each class from three azimuths.
    scene = Scene.empty(9, 3)
    scene.presence[:, :2] = True
    scene.identity[:] = torch.arange(9)[:, None] // 3
    scene.position[:, :2] = torch.tensor([[-0.36, -0.12], [0.33, -0.2]])
    scene.yaw[:, :2] = torch.tensor([2.5, -0.2])
    scene.azimuth[:] = torch.tensor([-0.3, 0.0, 0.3]).repeat(3)
    pictures = both(draw, rays, spec, scene, height=96, width=96)
    assert_alike(*pictures)
    empty = Scene(torch.zeros_like(scene.presence), *list(scene.tensors())[1:])
    seen = differences(pictures[0], draw(spec, "opengl", empty, height=96, width=96)).amax(dim=3)
    cut = (seen[:, :, [0, -1]] > 10).any(dim=2).any(dim=1)
    assert cut.reshape(3, 3).any(dim=1).all()  # every class crosses the edge in some picture


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize(("height", "width"), [(48, 96), (96, 64)])
def test_backends_agree_on_other_aspects(
    tabletop: SceneSpec, draw: Any, rays: str, height: int, width: int
) -> None:
    scene = sample(tabletop, 10, generator=seeded())
    pictures = both(draw, rays, tabletop, scene, height=height, width=width)
    assert pictures[0].shape == (10, height, width, 3)
    assert_alike(*pictures)


@pytest.mark.parametrize("colour", [[0.2, 0.4, 0.9], [1, 1, 1]])
def test_background_has_its_colour(
    world: World, draw: Any, backend: str, colour: list[float]
) -> None:
    world["background"] = colour
    world["table"]["half_size"], world["placement"]["extent"] = [0.3, 0.3], [0.1, 0.1]
    spec = SceneSpec.build(world | {"count": {"max": 1}})
    pictures = draw(spec, backend, sample(spec, 3, generator=seeded()))
    expected = torch.tensor([round(255 * value) for value in colour])
    for corner in (pictures[:, 0, 0], pictures[:, -1, -1], pictures[:, 0, -1]):
        assert (corner.int() == expected).all()
    assert (pictures.int() != expected).any(dim=3).float().mean() > 0.1


@pytest.mark.usefixtures("opengl")
def test_backends_agree_before_a_bright_background(world: World, draw: Any, rays: str) -> None:
    spec = SceneSpec.build(world | {"background": [0.2, 0.4, 0.9]})
    scene = sample(spec, 20, generator=seeded())
    assert_alike(*both(draw, rays, spec, scene))


@pytest.mark.usefixtures("opengl")
def test_backends_agree_on_textures(world: World, draw: Any, rays: str, checks: Path) -> None:
    world["table"] |= {"texture": str(checks), "colour": [1, 1, 1]}
    world["objects"][0] |= {"texture": str(checks), "colour": [1, 1, 1]}
    world["objects"][1] = {
        **{"name": "pan", "mesh": "meshes/pan.obj", "texture": str(checks), "colour": [1, 1, 1]}
    }
    spec = SceneSpec.build(world)
    scene = sample(spec, 20, generator=seeded())
    # OpenGL takes smaller copies of a texture for what is far away, rays take it as it is: the
    # squares agree, their edges do not.
    assert_alike(*both(draw, rays, spec, scene, height=128, width=128), mean=5.0, most=60.0)


def test_texture_of_the_table_shows(world: World, draw: Any, backend: str, checks: Path) -> None:
    plain = SceneSpec.build(world)
    world["table"]["texture"] = str(checks)
    textured = SceneSpec.build(world)
    empty = Scene.empty(1, 2)
    colours = [
        len(draw(spec, backend, empty)[0].flatten(0, 1).unique(dim=0)) for spec in (plain, textured)
    ]
    assert colours[0] < 20 and colours[1] > 2 * colours[0]


@pytest.mark.usefixtures("opengl")
def test_foreign_mesh_shows_its_texture(
    world: World, draw: Any, foreign_meshes: Path, tmp_path: Path
) -> None:
    kit = foreign_meshes / "kaykit"
    bowl = {"name": "bowl", "mesh": str(kit / "bowl.obj"), "scale": 0.25, "up_axis": "y"}
    world["objects"] = [bowl | {"colour": [1, 1, 1]}]
    plain = SceneSpec.build(world)
    world["objects"][0]["texture"] = str(kit / "restaurantbits_texture.png")
    textured = SceneSpec.build(world)
    saved = SceneSpec.load(textured.save(tmp_path))
    scene = sample(textured, 10, generator=seeded())
    pictures = draw(textured, "opengl", scene)
    assert_alike(pictures, draw(textured, "raycast", scene), mean=2.0, most=10.0)
    assert differences(pictures, draw(plain, "opengl", scene)).max() > 30
    assert torch.equal(pictures, draw(saved, "opengl", scene))


@pytest.mark.parametrize("n", [2, 3])
def test_supersampling_is_the_mean_of_a_larger_picture(
    tabletop: SceneSpec, draw: Any, backend: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A larger picture would be drawn with more detail.
    monkeypatch.setattr("renderer.opengl.pixel_tolerance", lambda spec, height: 0.002)
    scene = sample(tabletop, 6, generator=seeded())
    found = draw(tabletop, backend, scene, height=32, width=32, supersample=n)
    large = draw(tabletop, backend, scene, height=32 * n, width=32 * n)
    blocks = large.int().unflatten(2, (32, n)).unflatten(1, (32, n)).sum(dim=(2, 4))
    expected = ((blocks + n * n // 2) // (n * n)).byte()
    assert differences(found, expected).max() <= (0 if backend == "opengl" else 2)
    assert differences(expected, draw(tabletop, backend, scene, height=32, width=32)).max() > 20


@pytest.mark.parametrize("n", [1, 2, 3, LARGEST_SUPERSAMPLE])
def test_samples_are_averaged_without_overflow(n: int) -> None:
    samples = torch.randint(256, (2 * n, 3 * n, 4), generator=seeded()).byte()
    samples[:n, :n] = 255
    blocks = samples.int().unflatten(1, (3, n)).unflatten(0, (2, n)).sum(dim=(1, 3))
    expected = ((blocks + n * n // 2) // (n * n)).byte()
    assert torch.equal(torch.from_numpy(average_blocks(samples.numpy(), n)), expected)


def test_too_many_samples_are_refused(tabletop: SceneSpec) -> None:
    with pytest.raises(ValueError, match=r"supersample is 17; OpenGL takes up to 16"):
        OpenGLRenderer(tabletop, height=8, width=8, supersample=17)


# --- one renderer, many uses -----------------------------------------------------------------


def test_a_picture_does_not_depend_on_its_batch(
    tabletop: SceneSpec, opened: Callable[..., Renderer], backend: str
) -> None:
    drawing = opened(tabletop, backend)
    scene = sample(tabletop, 70, generator=seeded())
    together = drawing.render_bytes(scene)
    assert torch.equal(together[:3], drawing.render_bytes(scene[:3]))
    for index in (0, 2, 41, 69):
        assert torch.equal(together[index : index + 1], drawing.render_bytes(scene[index]))
    assert torch.equal(together, drawing.render_bytes(scene))


@pytest.mark.usefixtures("opengl")
def test_more_scenes_than_the_framebuffer_holds(
    tabletop: SceneSpec, opened: Callable[..., Renderer]
) -> None:
    drawing = opened(tabletop, "opengl", side=400)  # 2 x 2 at once
    scene = sample(tabletop, 7, generator=seeded())
    together = drawing.render_bytes(scene)
    for index in range(7):
        alone = drawing.render_bytes(scene[index])
        # Elsewhere in the framebuffer, an edge may round to the neighbouring pixel.
        assert (together[index : index + 1] != alone).float().mean() < 1e-4


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("cuts", [[0, 25, 50], [0, 3, 4, 36, 50]])
def test_parts_of_a_batch_are_drawn_as_in_the_whole(tabletop: SceneSpec, cuts: list[int]) -> None:
    drawing = OpenGLRenderer(tabletop, height=150, width=200)  # 6 x 5 at once
    scene = sample(tabletop, 50, generator=seeded())
    parts = [drawing.render_bytes(scene[a:b], before=a) for a, b in pairwise(cuts)]
    assert torch.equal(torch.cat(parts), drawing.render_bytes(scene))
    drawing.close()


def test_floats_are_the_bytes(
    tabletop: SceneSpec, opened: Callable[..., Renderer], backend: str
) -> None:
    drawing = opened(tabletop, backend)
    scene = sample(tabletop, 4, generator=seeded())
    picture = drawing.render(scene)
    assert picture.device == drawing.device
    assert drawing.device.type == (backend.partition("-")[2] or "cpu")
    picture = picture.cpu()
    assert picture.shape == (4, 3, 32, 32) and picture.dtype == torch.float32
    assert torch.equal(
        (picture * 255).round().byte().permute(0, 2, 3, 1), drawing.render_bytes(scene)
    )
    assert picture.min() >= 0 and 0.3 < picture.max() <= 1


def test_no_scenes_no_pictures(
    tabletop: SceneSpec, opened: Callable[..., Renderer], backend: str
) -> None:
    assert opened(tabletop, backend).render(Scene.empty(0, 3)).shape == (0, 3, 32, 32)


def test_pictures_are_not_drawn_over_later(
    tabletop: SceneSpec, opened: Callable[..., Renderer], backend: str
) -> None:
    drawing = opened(tabletop, backend)
    scene = sample(tabletop, 8, generator=seeded())
    first = drawing.render_bytes(scene[:4])
    kept = first.clone()
    drawing.render_bytes(scene[4:])
    assert torch.equal(first, kept)


def test_scenes_with_other_numbers_of_slots(
    tabletop: SceneSpec, opened: Callable[..., Renderer], backend: str
) -> None:
    scene = sample(tabletop, 20, generator=seeded())
    few = scene[scene.count <= 1]
    expected = opened(tabletop, backend).render_bytes(few)
    narrow = Scene(*(value[:, :1] for value in list(few.tensors())[:4]), azimuth=few.azimuth)
    assert torch.equal(opened(tabletop, backend).render_bytes(narrow), expected)
    assert differences(opened(tabletop, backend, slots=1).render_bytes(few), expected).max() <= 1
    with pytest.raises(ValueError, match=r"this renderer shows 1; raise count\.max"):
        opened(tabletop, backend, slots=1).render(scene)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
@pytest.mark.usefixtures("opengl")
def test_renderers_do_not_disturb_each_other(
    tabletop: SceneSpec, world: World, order: list[int]
) -> None:
    specs = [tabletop, SceneSpec.build(world), SceneSpec.load("objects")]
    scenes = [sample(spec, 5, generator=seeded()) for spec in specs]
    all_open = [OpenGLRenderer(spec, height=40, width=40) for spec in specs]
    expected = [one.render_bytes(s) for one, s in zip(all_open, scenes, strict=True)]
    left = set(order)
    for closing in order:
        all_open[closing].close()
        all_open[closing].close()  # once more does no harm
        left.remove(closing)
        for index in left:
            assert torch.equal(all_open[index].render_bytes(scenes[index]), expected[index])
    with pytest.raises(RuntimeError, match="this renderer is closed; open another"):
        all_open[0].render(scenes[0])


@pytest.mark.usefixtures("opengl")
def test_a_renderer_forgotten_in_another_thread_disturbs_nobody(
    tabletop: SceneSpec, opened: Callable[..., Renderer]
) -> None:
    drawing = opened(tabletop, "opengl")
    scene = sample(tabletop, 5, generator=seeded())
    expected = drawing.render_bytes(scene)
    forgotten = [OpenGLRenderer(tabletop, height=40, width=40)]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(forgotten.clear).result()
        pool.submit(gc.collect).result()
        assert torch.equal(pool.submit(drawing.render_bytes, scene).result(), expected)
    assert torch.equal(drawing.render_bytes(scene), expected)


@pytest.mark.usefixtures("opengl")
def test_the_callers_own_context_stays_current(
    tabletop: SceneSpec, opened: Callable[..., Renderer]
) -> None:
    # A program that shows its own simulation draws with MuJoCo in between.
    drawing = opened(tabletop, "opengl")
    scene = sample(tabletop, 2, generator=seeded())
    expected = drawing.render_bytes(scene)
    own = renderer.opengl.create_context()
    with own.as_current():
        model = mujoco.MjModel.from_xml_string("<mujoco/>")
        target = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        assert torch.equal(drawing.render_bytes(scene), expected)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, target)
        assert target.currentBuffer == mujoco.mjtFramebuffer.mjFB_OFFSCREEN
        target.free()
    own.free()
    assert torch.equal(drawing.render_bytes(scene), expected)


def test_any_thread_may_draw(
    tabletop: SceneSpec, opened: Callable[..., Renderer], backend: str
) -> None:
    scene = sample(tabletop, 16, generator=seeded())
    drawings = [opened(tabletop, backend), opened(tabletop, backend, side=40)]
    expected = [drawing.render_bytes(scene) for drawing in drawings]
    start = threading.Barrier(4)

    def work(index: int) -> bool:
        start.wait(timeout=30)
        mine = [drawings[index % 2].render_bytes(scene) for _ in range(5)]
        return all(torch.equal(picture, expected[index % 2]) for picture in mine)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [True] * 4
    assert torch.equal(drawings[0].render_bytes(scene), expected[0])  # and this thread again


# --- opening ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backend": "vulkan"}, "unknown backend 'vulkan'; choose auto, opengl or raycast"),
        ({"height": 0}, "must be at least 1"),
        ({"supersample": 0}, "must be at least 1"),
        ({"backend": "opengl", "device": "cuda"}, "use 'raycast'"),
    ],
)
def test_what_cannot_be_opened(tabletop: SceneSpec, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_renderer(tabletop, **{"height": 32, "width": 32, **wrong})


def test_a_device_that_is_not_there(tabletop: SceneSpec) -> None:
    with pytest.raises(BackendError, match=r"no device 'cuda:99' here .*use device='cpu'"):
        open_renderer(tabletop, height=32, width=32, backend="raycast", device="cuda:99")


def test_auto_needs_no_opengl(
    tabletop: SceneSpec, monkeypatch: pytest.MonkeyPatch, draw: Any
) -> None:
    def none_here() -> Any:
        raise BackendError("no headless OpenGL here")

    monkeypatch.setattr(renderer.opengl, "create_context", none_here)
    monkeypatch.setattr(renderer.choice, "_found", {})
    scene = sample(tabletop, 3, generator=seeded())
    drawing = open_renderer(tabletop, height=64, width=64)
    assert drawing.name == "raycast"
    assert torch.equal(drawing.render_bytes(scene), draw(tabletop, "raycast", scene))
    with pytest.raises(BackendError, match="no headless OpenGL here"):
        open_renderer(tabletop, height=64, width=64, backend="opengl")


def test_without_opengl_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> Any:
        raise ImportError(f"{name} is not here")

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(renderer.opengl.importlib, "import_module", fails)
    monkeypatch.setattr(renderer.opengl.platform, "system", lambda: "Linux")
    monkeypatch.setattr(renderer.opengl, "_forget_pyopengl", lambda: None)
    with pytest.raises(BackendError) as caught:
        renderer.opengl.create_context()
    for part in ("mujoco.egl is not here", "mujoco.osmesa is not here", "libegl1", "'raycast'"):
        assert part in str(caught.value)


@pytest.mark.usefixtures("opengl")
def test_too_large_for_opengl(tabletop: SceneSpec) -> None:
    with pytest.raises(BackendError, match="choose a smaller picture"):
        open_renderer(tabletop, height=8, width=1_000_000, backend="opengl")


def test_ray_casting_prints_nothing(
    tabletop: SceneSpec,
    opened: Callable[..., Renderer],
    rays: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    opened(tabletop, rays, side=33).render(Scene.empty(1, 3))
    assert capfd.readouterr().out == ""

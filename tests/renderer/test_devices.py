"""What ray casting shares with torch stays on its device: no copies, no waiting, no mixing.

Most of it is seen on the CPU as well: memory is shared there in the same way, tensors without
contents (`meta`) betray whatever would look at them or mix devices, and what makes the host wait
for a card can be counted without one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import warp as wp
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import renderer.mjcf
import renderer.raycast
from renderer.backend import BackendError, open_renderer
from renderer.differences import Differences, Steps, contract, freedoms, perturb, plan
from renderer.differentiable import differentiable_render
from renderer.mjcf import build_model, slots_of
from renderer.prior import sample
from renderer.raycast import RaycastRenderer
from renderer.scene import Scene
from renderer.spec import SceneSpec
from renderer.windows import change_windows

SIZE = 24  # px


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("tabletop")


@pytest.fixture
def drawing(spec: SceneSpec, rays: str, open_on: Callable[..., Any]) -> RaycastRenderer:
    found = open_on(spec, rays, height=SIZE, width=SIZE, supersample=2)
    assert isinstance(found, RaycastRenderer)
    return found


def some(spec: SceneSpec, n: int) -> Scene:
    return sample(spec, n, generator=torch.Generator().manual_seed(0))


def windows_at(n: int, device: torch.device) -> Tensor:
    """Windows `[n, 4]` of some sizes, in pictures of SIZE."""
    generator = torch.Generator().manual_seed(1)
    corner = torch.randint(0, SIZE // 2, (n, 2), generator=generator)
    return torch.cat([corner, torch.randint(0, SIZE // 2, (n, 2), generator=generator)], 1).to(
        device
    )


# --- memory ----------------------------------------------------------------------------------


def test_poses_and_pixels_are_warps_own_memory(drawing: RaycastRenderer, spec: SceneSpec) -> None:
    drawing.render(some(spec, 8))
    drawing.render_windows(some(spec, 8), windows_at(8, drawing.device))
    (tiles,) = drawing._tiles.values()
    for worlds in (drawing._worlds[8, False], tiles.worlds):
        data, context = worlds.data, worlds.context
        arrays = (data.geom_xpos, data.geom_xmat, data.cam_xpos, data.cam_xmat)
        pairs = [*zip(arrays, worlds.poses, strict=True)]
        for array, tensor in [*pairs, (context.rgb_data, worlds.pixels)]:
            assert tensor.data_ptr() == array.ptr and tensor.device == drawing.device
            assert tensor.is_contiguous() and tensor.nbytes == array.capacity
    array = tiles.worlds.model.cam_intrinsic
    assert tiles.centre.data_ptr() == array.ptr + 2 * 4  # behind the two focal lengths
    assert tiles.worlds.sums.data_ptr() == tiles.worlds.context.aa_accum.ptr


def test_what_is_drawn_first_in_inference_mode_serves_any_mode(
    drawing: RaycastRenderer, spec: SceneSpec
) -> None:
    scene, windows = some(spec, 6), windows_at(6, drawing.device)
    with torch.inference_mode():
        inferred = drawing.render(scene), drawing.render_windows(scene, windows)
    leaf = dataclasses.replace(scene, position=scene.position.clone().requires_grad_())
    picture = differentiable_render(drawing, leaf)
    assert torch.equal(picture.detach(), inferred[0])
    assert torch.equal(drawing.render_windows(leaf, windows), inferred[1])
    (gradient,) = torch.autograd.grad(picture.square().sum(), [leaf.position])
    assert gradient.device == leaf.position.device and gradient[scene.presence].any()


def test_scenes_of_any_type_and_layout(drawing: RaycastRenderer, spec: SceneSpec) -> None:
    scene = some(spec, 6)
    expected = drawing.render(scene)
    wide = torch.zeros(6, spec.count.max, 5)
    wide[..., 1::2] = scene.position
    strided = dataclasses.replace(
        scene,
        position=wide[..., 1::2],
        identity=scene.identity.int().long().T.contiguous().T,
        azimuth=scene.azimuth.repeat_interleave(2)[::2],
    )
    double = dataclasses.replace(
        scene,
        position=scene.position.double().requires_grad_(),
        yaw=scene.yaw.double(),
        azimuth=scene.azimuth.double(),
    )
    for other in (strided, double, scene.to(drawing.device)):
        assert torch.equal(drawing.render(other), expected)


# --- waiting ---------------------------------------------------------------------------------


class Waiting(TorchDispatchMode):
    """Counts all that makes a host wait for its card."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        for name in ("cpu", "numpy", "tolist", "__array__"):
            monkeypatch.setattr(Tensor, name, self._counted(name, getattr(Tensor, name)))

    def _counted(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            self.counts[name] += 1
            with torch.utils._python_dispatch._disable_current_modes():
                return original(*args, **kwargs)

        return method

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        sizes = name == "repeat_interleave" and kwargs.get("output_size") is None
        constants = name == "lift_fresh"  # a tensor of numbers in a program
        if masks or sizes or constants or name in ("_local_scalar_dense", "nonzero"):
            self.counts["mask" if masks else name] += 1
        return func(*args, **kwargs)


def test_the_host_waits_for_sizes_and_nothing_else(
    drawing: RaycastRenderer, spec: SceneSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = some(spec, 70).to(drawing.device)  # two launches and more on the CPU
    windows = windows_at(70, drawing.device)
    expected = drawing.render(scene), drawing.render_windows(scene, windows)
    with Waiting(monkeypatch) as waiting:
        picture = drawing.render(scene)
        known_classes = {"_local_scalar_dense": 1}
        assert waiting.counts == known_classes
        waiting.counts.clear()
        pixels = drawing.render_windows(scene, windows)
        assert waiting.counts == known_classes | {"tolist": 2}  # of tiles, and of pixels
    assert torch.equal(picture, expected[0]) and torch.equal(pixels, expected[1])


def test_waiting_for_a_gradient_does_not_grow_with_the_batch(
    drawing: RaycastRenderer, spec: SceneSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def back(scene: Scene) -> None:
        leaf = dataclasses.replace(scene, position=scene.position.clone().requires_grad_())
        leaf = dataclasses.replace(leaf, azimuth=scene.azimuth.clone().requires_grad_())
        differentiable_render(drawing, leaf).square().sum().backward()

    scene = some(spec, 64)
    few, many = scene[scene.count > 0][:4].to(drawing.device), scene.to(drawing.device)
    for part in (few, many):  # what is made once is made
        back(part)
    counts = []
    with Waiting(monkeypatch) as waiting:
        for part in (few, many):
            waiting.counts.clear()
            back(part)
            counts.append(dict(waiting.counts))
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) < 20


# --- mixing ----------------------------------------------------------------------------------


def meta(value: Any) -> Any:
    """The same without contents: nothing can be read from it, and with the CPU it does not mix."""
    return type(value)(*(getattr(value, f.name).to("meta") for f in dataclasses.fields(value)))


def test_geometry_stays_on_its_device(spec: SceneSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer.mjcf, "_check_classes", lambda scene, classes: None)
    scene, built = some(spec, 7), build_model(spec)
    free = freedoms(scene, spec.symmetry_orders)
    moves = plan(free, Steps.for_size(spec, SIZE), "central")

    def all_of(scene: Scene, moves: Differences) -> list[Tensor]:
        model = built.to(scene.azimuth.device)
        moved = perturb(scene, moves)
        return [
            *slots_of(scene, 5).tensors(),
            *model.geom_poses(scene),
            *model.camera_poses(scene),
            freedoms(scene, spec.symmetry_orders),
            *moved.tensors(),
            change_windows(spec, scene, moves, moved, SIZE, SIZE),
            *contract(moves, moves.offset, 7, scene.slots),
        ]

    expected = all_of(scene, moves)
    for found, real in zip(all_of(meta(scene), meta(moves)), expected, strict=True):
        assert found.device.type == "meta"
        assert found.shape == real.shape and found.dtype == real.dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_card_draws_what_the_processor_draws(spec: SceneSpec) -> None:
    scene, windows = some(spec, 200), windows_at(200, torch.device("cpu"))
    size: dict[str, Any] = {"height": SIZE, "width": SIZE, "supersample": 2, "backend": "raycast"}
    here, there = (open_renderer(spec, device=device, **size) for device in ("cpu", "cuda"))
    off = (here.render(scene) - there.render(scene.to("cuda")).cpu()).abs() * 255
    assert (off > 1.5).float().mean() < 1e-3
    assert isinstance(here, RaycastRenderer) and isinstance(there, RaycastRenderer)
    off = (here.render_windows(scene, windows) - there.render_windows(scene, windows).cpu()).abs()
    assert (off * 255 > 1.5).float().mean() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_card_draws_on_the_current_stream(spec: SceneSpec) -> None:
    drawing = RaycastRenderer(spec, height=SIZE, width=SIZE, device="cuda")
    scene = some(spec, 512).to("cuda")
    expected = drawing.render(scene)
    streams = [torch.cuda.Stream(), torch.cuda.default_stream(), torch.cuda.Stream()]
    found = []
    for stream in streams * 3:  # nothing waits between these but the renderer
        with torch.cuda.stream(stream):
            torch.cuda._sleep(1_000_000)
            late = Scene(*(value.clone() for value in scene.tensors()))
            found.append(drawing.render(late))
    torch.cuda.synchronize()
    assert all(torch.equal(picture, expected) for picture in found)


# --- without a card --------------------------------------------------------------------------


def test_on_a_card_warp_works_on_torchs_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    # What stands for a card here only says how it was asked.
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"torch's on {device}")
    monkeypatch.setattr(wp, "stream_from_torch", lambda stream: f"Warp's for {stream}")
    monkeypatch.setattr(wp, "ScopedStream", lambda stream, **options: (stream, options))
    card = SimpleNamespace(is_cuda=True)
    renderer.raycast._shared_stream.cache_clear()
    found = renderer.raycast._same_order(card, torch.device("cuda:1"))
    renderer.raycast._shared_stream.cache_clear()
    assert found == ("Warp's for torch's on cuda:1", {"sync_enter": True, "sync_exit": True})


def test_a_card_that_torch_cannot_use_is_refused(
    spec: SceneSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wp, "get_cuda_device_count", lambda: 1)
    monkeypatch.setattr(wp, "get_device", lambda name: SimpleNamespace(is_cuda=True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"this torch is a build without CUDA.*use device='cpu'"):
        open_renderer(spec, height=8, width=8, backend="raycast", device="cuda")


@pytest.mark.parametrize(
    ("side", "device", "expected"),
    [
        (64, "cpu", 64),
        (64, "cuda", 4096),
        (100, "cuda", 1024),
        (8000, "cuda", 1),
        (1, "cuda", 4096),
    ],
)
def test_launches_fit_their_device(spec: SceneSpec, side: int, device: str, expected: int) -> None:
    drawing = RaycastRenderer(spec, height=side, width=side)
    drawing.device = torch.device(device)
    assert drawing._largest() == expected
    parts = list(renderer.raycast._parts(10_007, expected))
    assert parts[0].stop == expected and parts[-1].stop == 10_007
    assert all(one.stop == two.start for one, two in pairwise(parts))

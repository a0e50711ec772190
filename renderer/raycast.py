"""MuJoCo Warp's batched ray caster: needs no OpenGL, runs on the CPU and on CUDA.

Torch and Warp share memory: poses are written by torch where Warp reads them, pixels read where
Warp wrote them, on the same device and in the same order. From a scene on the card to its picture
nothing passes through the host but a few sizes.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import mujoco
import mujoco_warp as mjw
import torch
import warp as wp
from torch import Tensor

from renderer.appearance import Appearance, appearance_of
from renderer.backend import BackendError
from renderer.camera import focal_length, principal_point
from renderer.mjcf import SceneModel, build_model, slots_of
from renderer.scene import Scene
from renderer.spec import SceneSpec
from renderer.windows import tile_windows, tiled_index

# Warp reports every kernel that it loads on standard output, which is not its own to use.
wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)

# Worlds in one launch at most, by kind of device; more are drawn in several. A core is busy with
# few. A card has 10^5 threads to keep busy and idles between launches: there, as many as fit into
# a gigabyte with their pixels.
LARGEST_BATCH = {"cpu": 64, "cuda": 4096}
LARGEST_PIXELS = 1 << 24  # in one launch; 4096 pictures of 64 x 64

# Windows are drawn as square tiles, each in a world of its own. Small ones cast few rays beyond
# their window, but each has to be told where all geoms are.
TILE = 4  # px
# Tiles in one launch; the last launch is filled up.
TILE_BATCHES = {"cpu": (4096, 1024, 256, 64), "cuda": (16384, 4096, 1024, 256)}

# Warp's current device and stream are the process's, not a thread's: where there is more than one
# to choose from, one renderer draws at a time.
_TURN = threading.Lock()


@dataclass
class _Cast:
    """What all worlds of a kind share: the model, on the host and as Warp has it."""

    scene_model: SceneModel
    host: Any  # its MjData
    model: Any


@dataclass
class _Worlds:
    """Everything that Warp keeps for a fixed number of scenes, and torch's views of it."""

    model: Any
    data: Any
    context: Any
    poses: tuple[Tensor, ...]  # [N, G, 3], [N, G, 3, 3], [N, 1, 3], [N, 1, 3, 3], as `_poses`
    pixels: Tensor  # [N, P, 4] uint8; packed as 0xAARRGGBB, which is B, G, R, A in memory
    sums: Tensor  # [N, P, 3] of a pixel's samples in [0, 255], if there are several
    # Of the two lamps, directions, strengths and what they add everywhere, `[N, 2, 3]` each, and
    # of the geoms the colours, `[N, G, 4]`, where each scene has an appearance of its own.
    looks: tuple[Tensor, ...] = ()


@dataclass
class _Tiles:
    """Worlds whose cameras each look at a tile of a picture."""

    worlds: _Worlds
    centre: Tensor  # [T, 2] px from a tile's middle to where its camera's axis meets the picture


class RaycastRenderer:
    """Draws scenes by casting rays, one or n x n through each pixel.

    Scenes may lie on any device, and are moved to the renderer's. On CUDA, work is done on torch's
    current stream, so that what comes before and after it needs no synchronisation.

    Args:
        spec: the world.
        height: of a picture, px.
        width: of a picture, px.
        supersample: n casts n x n rays a pixel and averages them.
        slots: object slots; the spec's greatest count when not given.
        device: `cpu`, `cuda`, or `cuda:1` for the second card.

    Raises:
        BackendError: the device is not there.
    """

    name = "raycast"

    def __init__(
        self,
        spec: SceneSpec,
        *,
        height: int,
        width: int,
        supersample: int = 1,
        slots: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.spec = spec
        self.height, self.width, self.supersample = height, width, supersample
        self._device = _warp_device(device)
        self.device = torch.device(wp.device_to_torch(self._device))
        self.slots = slots or spec.count.max
        self._worlds: dict[tuple[int, bool], _Worlds] = {}
        self._tiles: dict[tuple[int, bool], _Tiles] = {}
        self._casts: dict[bool, _Cast] = {}
        # Any thread may draw, one at a time.
        self._lock = _TURN if wp.get_cuda_device_count() else threading.Lock()
        with self._drawing():
            self._scene_model = self._cast(dressed=False).scene_model
            # Colours in the order in which Warp packs them.
            self._channels = torch.tensor([2, 1, 0], device=self.device)

    def render(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        """Pictures `[B, 3, H, W]` float32 in [0, 1] of a batch of scenes, on `device`."""
        return self._draw(scene, appearance).permute(0, 3, 1, 2).float().div_(255.0)

    def render_bytes(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        """Pictures `[B, H, W, 3]` uint8 of a batch of scenes, on the CPU."""
        return self._draw(scene, appearance).cpu()

    def close(self) -> None:
        """Does nothing: what Warp holds goes with the renderer."""

    def _draw(self, scene: Scene, appearance: Appearance | None) -> Tensor:
        looks = self._looks(scene, appearance)
        poses = self._poses(scene, looks)
        pictures = torch.empty(
            (len(scene), self.height, self.width, 3), dtype=torch.uint8, device=self.device
        )
        for part in _parts(len(scene), self._largest(dressed=looks is not None)):
            with self._drawing():
                worlds = self._worlds_of(part.stop - part.start, dressed=looks is not None)
                self._arrange(worlds, [pose[part] for pose in poses])
                if looks is not None:
                    pictures[part] = self._draw_dressed(worlds, looks[part])
                    continue
                mjw.render(worlds.model, worlds.data, worlds.context)
                # A copy, for Warp draws there again.
                unpacked = pictures[part].flatten(1, 2)
                torch.index_select(worlds.pixels, 2, self._channels, out=unpacked)
        return pictures

    def _draw_dressed(self, worlds: _Worlds, looks: Appearance) -> Tensor:
        """Pictures `[N, H, W, 3]` uint8 of scenes with appearances of their own."""
        n = self.supersample
        self._dress(worlds, looks)
        mjw.render(worlds.model, worlds.data, worlds.context)
        samples = self._before(worlds.pixels, looks.background)
        blocks = samples.view(len(looks), self.height, n, self.width, n, 3)
        return blocks.mean((2, 4)).round_().byte()

    def render_windows(
        self, scene: Scene, windows: Tensor, appearance: Appearance | None = None
    ) -> Tensor:
        """Pixels `[P, 3]` in [0, 1] of one window of each scene's picture, packed, on `device`.

        The same rays as through a whole picture, but computed from each tile's own camera.
        """
        looks = self._looks(scene, appearance)
        poses = self._poses(scene, looks)
        windows = windows.to(self.device)
        # Here the host waits to hear how many tiles and pixels there are, and then no more.
        tile_of, left, top = tile_windows(windows, TILE)
        index = tiled_index(windows, TILE)
        axis = principal_point(self.spec.camera, self.height, self.width)
        sides = ((left, axis[0]), (top, axis[1]))
        middle = torch.stack([low.double() + TILE / 2 - at for low, at in sides], dim=1)
        parts = [torch.empty(0, TILE * TILE, 3, device=self.device)]
        sizes = TILE_BATCHES[self.device.type]
        start = 0
        while start < len(tile_of):
            size = next((n for n in sizes if n <= len(tile_of) - start), sizes[-1])
            # Where tiles run out the last is drawn once more.
            part = torch.arange(start, start + size, device=self.device)
            part.clamp_max_(len(tile_of) - 1)
            scenes = tile_of[part]
            with self._drawing():
                tiles = self._tiles_of(size, dressed=looks is not None)
                self._arrange(tiles.worlds, [pose[scenes] for pose in poses])
                dresses = None if looks is None else looks[scenes]
                parts.append(self._draw_tiles(tiles, middle[part], dresses))
            start += size
        return torch.cat(parts).view(-1, 3)[index].div_(255.0)

    def _looks(self, scene: Scene, appearance: Appearance | None) -> Appearance | None:
        if appearance is None:
            return None
        return appearance_of(scene, appearance.to(self.device), self.slots)

    def _poses(self, scene: Scene, looks: Appearance | None) -> list[Tensor]:
        """Of every scene: positions and rotations of the geoms, then of its one camera."""
        scene = slots_of(scene, self.slots).to(self.device)
        position, axes = self._scene_model.camera_poses(scene, looks)
        return [*self._scene_model.geom_poses(scene), position[:, None], axes[:, None]]

    def _arrange(self, worlds: _Worlds, poses: list[Tensor]) -> None:
        """Moves everything in the worlds to where `_poses` says."""
        for view, values in zip(worlds.poses, poses, strict=True):
            view.copy_(values)
        mjw.refit_bvh(worlds.model, worlds.data, worlds.context)

    def _dress(self, worlds: _Worlds, looks: Appearance) -> None:
        """Lights and colours the worlds; cameras are where they belong already."""
        direction, diffuse, ambient, colours = worlds.looks
        direction[:, 0], direction[:, 1] = looks.light_direction, -worlds.poses[3][:, 0, :, 2]
        diffuse[:, 0], diffuse[:, 1] = looks.light[:, None], looks.headlight[:, None]
        ambient[:, 0] = looks.ambient[:, None]
        colours[:, 0, :3] = looks.table
        colours[:, 1:, :3] = looks.objects.flatten(1, 2)

    def _before(self, pixels: Tensor, background: Tensor) -> Tensor:
        """Packed pixels `[N, P, 4]` as `[N, P, 3]` in [0, 255]; alpha 0 is background `[N, 3]`."""
        seen = pixels[..., 3:] != 0
        return pixels[..., self._channels].float().where(seen, 255.0 * background[:, None])

    def _draw_tiles(self, tiles: _Tiles, middle: Tensor, looks: Appearance | None) -> Tensor:
        """The pixels `[T, TILE * TILE, 3]` in [0, 255] of tiles.

        Args:
            tiles: T worlds.
            middle: `[T, 2]` float64, px from the camera's axis to the tiles' middles.
            looks: of each tile, or None for the spec's.
        """
        n, worlds = self.supersample, tiles.worlds
        worlds.sums.zero_()
        if looks is not None:
            self._dress(worlds, looks)
            dressed = torch.zeros(len(middle), TILE * TILE, 3, device=self.device)
        for sample in range(n * n):
            # Each pixel is shown by a ray through its middle: the camera moves for the others.
            for axis, part in enumerate((sample % n, sample // n)):
                jitter = (part + 0.5) / n - 0.5
                torch.add(middle[:, axis], jitter, out=tiles.centre[:, axis])
            mjw.render(worlds.model, worlds.data, worlds.context)
            if looks is not None:
                dressed += self._before(worlds.pixels, looks.background)
        if looks is not None:
            return dressed.mul_(1 / (n * n)).round_()
        if n == 1:
            return worlds.pixels.index_select(2, self._channels).float()
        # Cut off to bytes as in whole pictures.
        return worlds.sums.mul(1 / (n * n)).floor_().clamp_(0, 255)

    def _tiles_of(self, size: int, *, dressed: bool) -> _Tiles:
        key = (size, dressed)
        if key not in self._tiles:
            worlds = self._make_worlds(
                size, TILE, TILE, 1 if dressed else self.supersample, dressed
            )
            context, model = worlds.context, worlds.model
            # Warp refuses several samples a pixel for rays that differ between worlds, as it would
            # cast all along one ray. A kernel compiled to add samples up, which happens on first
            # use, does so for these rays as well; each draw then adds the one that it is aimed at.
            context.use_precomputed_rays = False
            focal = focal_length(self.spec.camera, self.height)
            model.cam_intrinsic = wp.full((size, 1), wp.vec4(focal), dtype=wp.vec4)
            model.cam_sensorsize = wp.array([[TILE, TILE]], dtype=wp.vec2)
            mjw.render(model, worlds.data, context)
            context.samples_per_pixel = 1
            self._tiles[key] = _Tiles(worlds, _view(model.cam_intrinsic)[:, 0, 2:])
        return self._tiles[key]

    def _worlds_of(self, size: int, *, dressed: bool) -> _Worlds:
        key = (size, dressed)
        if key not in self._worlds:
            # Those with backgrounds of their own tell them from what is seen sample by sample.
            n, samples = (self.supersample, 1) if dressed else (1, self.supersample)
            self._worlds[key] = self._make_worlds(
                size, self.height * n, self.width * n, samples, dressed
            )
        return self._worlds[key]

    def _cast(self, *, dressed: bool) -> _Cast:
        if dressed not in self._casts:
            built = build_model(self.spec, slots=self.slots, lamps=dressed)
            self._set_axis(built.model)
            host = mujoco.MjData(built.model)
            mujoco.mj_forward(built.model, host)
            self._casts[dressed] = _Cast(built.to(self.device), host, mjw.put_model(built.model))
        return self._casts[dressed]

    def _set_axis(self, model: mujoco.MjModel) -> None:
        """Has the camera's axis meet the picture where the spec says, if not in its middle."""
        if self.spec.camera.principal == (0.0, 0.0):
            return
        focal, (x, y) = (
            focal_length(self.spec.camera, self.height),
            principal_point(self.spec.camera, self.height, self.width),
        )
        model.cam_sensorsize[0] = self.width, self.height
        model.cam_intrinsic[0] = focal, focal, self.width / 2 - x, self.height / 2 - y

    def _make_worlds(
        self, size: int, height: int, width: int, samples: int, dressed: bool
    ) -> _Worlds:
        cast = self._cast(dressed=dressed)
        built, model = cast.scene_model.model, copy.copy(cast.model)
        data = mjw.put_data(built, cast.host, nworld=size)
        background = (*(v + 0.5 / 255 for v in self.spec.background), 1.0)
        context = mjw.create_render_context(
            built,
            nworld=size,
            cam_res=(width, height),
            render_rgb=True,
            render_depth=False,
            render_seg=False,
            use_shadows=False,
            # Cut off, not rounded, to bytes: half of one more makes that rounding.
            background_color=(0.0, 0.0, 0.0, 0.0) if dressed else background,
            enable_backface_culling=False,
            samples_per_pixel=samples,
            enable_specular=False,
            enable_emission=False,
            enable_per_light_ambient=dressed,
        )
        looks: tuple[Tensor, ...] = ()
        if dressed:
            # Each world has its own, where the model has one for all.
            model.light_diffuse = wp.zeros((size, built.nlight), dtype=wp.vec3)
            model.light_ambient = wp.zeros((size, built.nlight), dtype=wp.vec3)
            # A geom of exactly grey 0.5 and alpha 1 would have its material's colour.
            model.geom_rgba = wp.full((size, built.ngeom), wp.vec4(0.5), dtype=wp.vec4)
            arrays = (data.light_xdir, model.light_diffuse, model.light_ambient, model.geom_rgba)
            looks = tuple(map(_view, arrays))
        return _Worlds(
            model,
            data,
            context,
            poses=tuple(map(_view, (data.geom_xpos, data.geom_xmat, data.cam_xpos, data.cam_xmat))),
            pixels=_view(context.rgb_data.view(wp.int32)).view(torch.uint8).unflatten(-1, (-1, 4)),
            sums=_view(context.aa_accum),
            looks=looks,
        )

    def _largest(self, *, dressed: bool = False) -> int:
        """Worlds in one launch at most, a power of two."""
        pixels = self.height * self.width * (self.supersample**2 if dressed else 1)
        fitting = max(1, LARGEST_PIXELS // pixels)
        return min(LARGEST_BATCH[self.device.type], 1 << (fitting.bit_length() - 1))

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Warp is in this thread's hands, and works where and when torch works on `device`."""
        with self._lock, _same_order(self._device, self.device):
            yield


def _warp_device(name: str) -> Any:
    """Warp's device of that name, if torch can use it as well.

    Raises:
        BackendError: it is not there.
    """
    wp.init()
    try:
        if name == "cuda" and not wp.get_cuda_device_count():  # Warp itself would complain aloud
            raise RuntimeError("Warp finds no CUDA device, or its driver is too old for it")
        device = wp.get_device(name)
        if device.is_cuda and not torch.cuda.is_available():
            raise RuntimeError("Warp finds it, but this torch is a build without CUDA")
    except Exception as error:
        raise BackendError(
            f"there is no device {name!r} here ({error}); use device='cpu'"
        ) from None
    return device


def _same_order(device: Any, torch_device: torch.device) -> AbstractContextManager[object]:
    """Within it Warp works on `device`, on CUDA on torch's current stream.

    Streams of other threads that draw wait for each other: before and after, in the order in which
    they came, each waits for Warp's own.
    """
    if not device.is_cuda:
        return wp.ScopedDevice(device)
    stream = _shared_stream(torch.cuda.current_stream(torch_device))
    return wp.ScopedStream(stream, sync_enter=True, sync_exit=True)


@cache
def _shared_stream(stream: torch.cuda.Stream) -> Any:
    """Warp's name for a stream of torch's; one for each, as Warp forgets it with its last name."""
    return wp.stream_from_torch(stream)


def _view(array: Any) -> Tensor:
    """The same memory as a tensor."""
    with torch.inference_mode(False):  # for good, whatever the mode of whoever draws first
        return wp.to_torch(array)


def _parts(count: int, largest: int) -> Iterator[slice]:
    """Cuts a batch into powers of two, of `largest` at most.

    Warp draws all of its worlds however few are asked for, and making worlds takes time: with
    these few sizes, kept, every scene is drawn once and nothing else is.
    """
    start = 0
    while start < count:
        size = min(largest, 1 << ((count - start).bit_length() - 1))
        yield slice(start, start + size)
        start += size

"""MuJoCo Warp's batched ray caster: needs no OpenGL, runs on the CPU and on CUDA.

Torch and Warp share memory: poses are written by torch where Warp reads them, pixels read where
Warp wrote them, on the same device and in the same order. From a scene on the card to its picture
nothing passes through the host but a few sizes.
"""

from __future__ import annotations

import copy
import math
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

from renderer.backend import BackendError
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
class _Worlds:
    """Everything that Warp keeps for a fixed number of scenes, and torch's views of it."""

    data: Any
    context: Any
    poses: tuple[Tensor, ...]  # [N, G, 3], [N, G, 3, 3], [N, 1, 3], [N, 1, 3, 3], as `_poses`
    pixels: Tensor  # [N, P, 4] uint8; packed as 0xAARRGGBB, which is B, G, R, A in memory
    sums: Tensor  # [N, P, 3] of a pixel's samples in [0, 255], if there are several


@dataclass
class _Tiles:
    """Worlds whose cameras each look at a tile of a picture."""

    worlds: _Worlds
    model: Any  # the model, but for the cameras
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
        model = build_model(spec, slots=slots)
        self.slots = slots or spec.count.max
        self._host = mujoco.MjData(model.model)
        mujoco.mj_forward(model.model, self._host)
        self._worlds: dict[int, _Worlds] = {}
        self._tiles: dict[int, _Tiles] = {}
        # Any thread may draw, one at a time.
        self._lock = _TURN if wp.get_cuda_device_count() else threading.Lock()
        with self._drawing():
            self._model = mjw.put_model(model.model)
            self._scene_model: SceneModel = model.to(self.device)
            # Colours in the order in which Warp packs them.
            self._channels = torch.tensor([2, 1, 0], device=self.device)

    def render(self, scene: Scene) -> Tensor:
        """Pictures `[B, 3, H, W]` float32 in [0, 1] of a batch of scenes, on `device`."""
        return self._draw(scene).permute(0, 3, 1, 2).float().div_(255.0)

    def render_bytes(self, scene: Scene) -> Tensor:
        """Pictures `[B, H, W, 3]` uint8 of a batch of scenes, on the CPU."""
        return self._draw(scene).cpu()

    def close(self) -> None:
        """Does nothing: what Warp holds goes with the renderer."""

    def _draw(self, scene: Scene) -> Tensor:
        poses = self._poses(scene)
        pictures = torch.empty(
            (len(scene), self.height, self.width, 3), dtype=torch.uint8, device=self.device
        )
        for part in _parts(len(scene), self._largest()):
            with self._drawing():
                worlds = self._worlds_of(part.stop - part.start)
                self._arrange(worlds, [pose[part] for pose in poses])
                mjw.render(self._model, worlds.data, worlds.context)
                # A copy, for Warp draws there again.
                unpacked = pictures[part].flatten(1, 2)
                torch.index_select(worlds.pixels, 2, self._channels, out=unpacked)
        return pictures

    def render_windows(self, scene: Scene, windows: Tensor) -> Tensor:
        """Pixels `[P, 3]` in [0, 1] of one window of each scene's picture, packed, on `device`.

        The same rays as through a whole picture, but computed from each tile's own camera.
        """
        poses = self._poses(scene)
        windows = windows.to(self.device)
        # Here the host waits to hear how many tiles and pixels there are, and then no more.
        tile_of, left, top = tile_windows(windows, TILE)
        index = tiled_index(windows, TILE)
        sides = ((left, self.width), (top, self.height))
        middle = torch.stack([low.double() + (TILE - side) / 2 for low, side in sides], dim=1)
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
                tiles = self._tiles_of(size)
                self._arrange(tiles.worlds, [pose[scenes] for pose in poses])
                parts.append(self._draw_tiles(tiles, middle[part]))
            start += size
        return torch.cat(parts).view(-1, 3)[index].div_(255.0)

    def _poses(self, scene: Scene) -> list[Tensor]:
        """Of every scene: positions and rotations of the geoms, then of its one camera."""
        scene = slots_of(scene, self.slots).to(self.device)
        position, axes = self._scene_model.camera_poses(scene)
        return [*self._scene_model.geom_poses(scene), position[:, None], axes[:, None]]

    def _arrange(self, worlds: _Worlds, poses: list[Tensor]) -> None:
        """Moves everything in the worlds to where `_poses` says."""
        for view, values in zip(worlds.poses, poses, strict=True):
            view.copy_(values)
        mjw.refit_bvh(self._model, worlds.data, worlds.context)

    def _draw_tiles(self, tiles: _Tiles, middle: Tensor) -> Tensor:
        """The pixels `[T, TILE * TILE, 3]` in [0, 255] of tiles.

        Args:
            tiles: T worlds.
            middle: `[T, 2]` float64, px from the picture's middle to the tiles'.
        """
        n, worlds = self.supersample, tiles.worlds
        worlds.sums.zero_()
        for sample in range(n * n):
            # Each pixel is shown by a ray through its middle: the camera moves for the others.
            for axis, part in enumerate((sample % n, sample // n)):
                jitter = (part + 0.5) / n - 0.5
                torch.add(middle[:, axis], jitter, out=tiles.centre[:, axis])
            mjw.render(tiles.model, worlds.data, worlds.context)
        if n == 1:
            return worlds.pixels.index_select(2, self._channels).float()
        # Cut off to bytes as in whole pictures.
        return worlds.sums.mul(1 / (n * n)).floor_().clamp_(0, 255)

    def _tiles_of(self, size: int) -> _Tiles:
        if size not in self._tiles:
            worlds = self._make_worlds(size, TILE, TILE)
            context = worlds.context
            # Warp refuses several samples a pixel for rays that differ between worlds, as it would
            # cast all along one ray. A kernel compiled to add samples up, which happens on first
            # use, does so for these rays as well; each draw then adds the one that it is aimed at.
            context.use_precomputed_rays = False
            model = copy.copy(self._model)
            focal = 0.5 * self.height / math.tan(math.radians(self.spec.camera.fovy_deg) / 2)
            model.cam_intrinsic = wp.full((size, 1), wp.vec4(focal), dtype=wp.vec4)
            model.cam_sensorsize = wp.array([[TILE, TILE]], dtype=wp.vec2)
            mjw.render(model, worlds.data, context)
            context.samples_per_pixel = 1
            self._tiles[size] = _Tiles(worlds, model, _view(model.cam_intrinsic)[:, 0, 2:])
        return self._tiles[size]

    def _worlds_of(self, size: int) -> _Worlds:
        if size not in self._worlds:
            self._worlds[size] = self._make_worlds(size, self.height, self.width)
        return self._worlds[size]

    def _make_worlds(self, size: int, height: int, width: int) -> _Worlds:
        model = self._scene_model.model
        data = mjw.put_data(model, self._host, nworld=size)
        context = mjw.create_render_context(
            model,
            nworld=size,
            cam_res=(width, height),
            render_rgb=True,
            render_depth=False,
            render_seg=False,
            use_shadows=False,
            # Cut off, not rounded, to bytes: half of one more makes that rounding.
            background_color=(*(v + 0.5 / 255 for v in self.spec.background), 1.0),
            enable_backface_culling=False,
            samples_per_pixel=self.supersample,
            enable_specular=False,
            enable_emission=False,
            enable_per_light_ambient=False,
        )
        return _Worlds(
            data,
            context,
            poses=tuple(map(_view, (data.geom_xpos, data.geom_xmat, data.cam_xpos, data.cam_xmat))),
            pixels=_view(context.rgb_data.view(wp.int32)).view(torch.uint8).unflatten(-1, (-1, 4)),
            sums=_view(context.aa_accum),
        )

    def _largest(self) -> int:
        """Worlds in one launch at most, a power of two."""
        fitting = max(1, LARGEST_PIXELS // (self.height * self.width))
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

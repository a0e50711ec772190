"""MuJoCo Warp's batched ray caster: needs no OpenGL, runs on the CPU and on CUDA."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from renderer.backend import BackendError
from renderer.mjcf import SceneModel, build_model, slots_of
from renderer.scene import Scene
from renderer.spec import SceneSpec
from renderer.windows import tile_windows, tiled_index

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

# Warp reports every kernel that it loads on standard output, which is not its own to use.
wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)

LARGEST_BATCH = 64  # worlds in one launch; more are drawn in several

# Windows are drawn as square tiles, each in a world of its own. Small ones cast few rays beyond
# their window, but each has to be told where all geoms are.
TILE = 4  # px
TILE_BATCHES = (4096, 1024, 256, 64)  # tiles in one launch; the last launch is filled up


@dataclass
class _Worlds:
    """Everything that Warp keeps for a fixed number of scenes."""

    data: Any
    context: Any


@dataclass
class _Tiles:
    """Worlds whose cameras each look at a tile of a picture."""

    worlds: _Worlds
    model: Any  # the model, but for the cameras
    intrinsic: Any  # [T, 1] focal lengths and principal point of each tile's camera, px


class RaycastRenderer:
    """Draws scenes by casting rays, one or n x n through each pixel.

    Args:
        spec: the world.
        height: of a picture, px.
        width: of a picture, px.
        supersample: n casts n x n rays a pixel and averages them.
        slots: object slots; the spec's greatest count when not given.
        device: `cpu` or `cuda`.

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
        wp.init()
        self.spec = spec
        self.height, self.width, self.supersample = height, width, supersample
        try:
            self._device = wp.get_device(device)
        except Exception as error:
            raise BackendError(
                f"Warp has no device {device!r} here ({error}); use device='cpu'"
            ) from None
        self._scene_model: SceneModel = build_model(spec, slots=slots)
        self.slots = slots or spec.count.max
        self._host = mujoco.MjData(self._scene_model.model)
        mujoco.mj_forward(self._scene_model.model, self._host)
        with wp.ScopedDevice(self._device):
            self._model = mjw.put_model(self._scene_model.model)
        self._worlds: dict[int, _Worlds] = {}
        self._tiles: dict[int, _Tiles] = {}
        self._lock = threading.Lock()  # any thread may draw, one at a time

    def render(self, scene: Scene) -> Tensor:
        """Pictures `[B, 3, H, W]` float32 in [0, 1] of a batch of scenes."""
        return self._draw(scene).permute(0, 3, 1, 2).float().div_(255.0)

    def render_bytes(self, scene: Scene) -> Tensor:
        """Pictures `[B, H, W, 3]` uint8 of a batch of scenes, on the CPU."""
        return self._draw(scene).cpu()

    def close(self) -> None:
        """Does nothing: what Warp holds goes with the renderer."""

    def _draw(self, scene: Scene) -> Tensor:
        scene = slots_of(scene, self.slots)
        poses = self._poses(scene)
        parts = []
        for part in _parts(len(scene)):
            count = part.stop - part.start
            with self._lock, wp.ScopedDevice(self._device):
                worlds = self._worlds_of(count)
                self._arrange(worlds, [pose[part] for pose in poses])
                mjw.render(self._model, worlds.data, worlds.context)
                channels = _channels(worlds.context)
                parts.append(channels.view(count, self.height, self.width, 3))
        if not parts:
            return torch.empty(0, self.height, self.width, 3, dtype=torch.uint8)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def render_windows(self, scene: Scene, windows: Tensor, *, coarse: bool = False) -> Tensor:
        """Pixels `[P, 3]` in [0, 1] of one window of each scene's picture, packed.

        The same rays as through a whole picture, but computed from each tile's own camera. They
        hardly cost less with fewer triangles, so `coarse` is the same.
        """
        scene = slots_of(scene, self.slots)
        poses = self._poses(scene)
        windows = windows.cpu()
        tile_of, left, top = tile_windows(windows, TILE)
        parts = [torch.empty(0, 3, device=wp.device_to_torch(self._device))]
        start = 0
        while start < len(tile_of):
            size = next((n for n in TILE_BATCHES if n <= len(tile_of) - start), TILE_BATCHES[-1])
            # Where tiles run out the last is drawn once more.
            part = np.minimum(np.arange(start, start + size), len(tile_of) - 1)
            scenes = tile_of[part].numpy()
            with self._lock, wp.ScopedDevice(self._device):
                tiles = self._tiles_of(size)
                self._arrange(tiles.worlds, [pose[scenes] for pose in poses])
                parts.append(self._draw_tiles(tiles, left[part].numpy(), top[part].numpy()))
            start += size
        drawn = torch.cat(parts)
        return drawn[tiled_index(windows, TILE).to(drawn.device)].div_(255.0)

    def _poses(self, scene: Scene) -> list[Floats]:
        """Of every scene: positions and rotations of the geoms, then of its one camera."""
        position, axes = self._scene_model.camera_poses(scene)
        return [*self._scene_model.geom_poses(scene), position[:, None], axes[:, None]]

    def _arrange(self, worlds: _Worlds, poses: list[Floats]) -> None:
        """Moves everything in the worlds to where `_poses` says."""
        data = worlds.data
        arrays = (data.geom_xpos, data.geom_xmat, data.cam_xpos, data.cam_xmat)
        for array, values in zip(arrays, poses, strict=True):
            _fill(array, values)
        mjw.refit_bvh(self._model, data, worlds.context)

    def _draw_tiles(self, tiles: _Tiles, left: Integers, top: Integers) -> Tensor:
        """The pixels of tiles whose corners are at `left`, `top` `[T]` px.

        One tile behind the other: `[T * TILE * TILE, 3]` in [0, 255].
        """
        n, context = self.supersample, tiles.worlds.context
        focal = 0.5 * self.height / math.tan(math.radians(self.spec.camera.fovy_deg) / 2)
        intrinsic = np.full((len(left), 1, 4), focal, dtype=np.float32)
        context.aa_accum.zero_()
        for sample in range(n * n):
            # Each pixel is shown by a ray through its middle: the camera moves for the others.
            jitter_y, jitter_x = ((part + 0.5) / n - 0.5 for part in divmod(sample, n))
            intrinsic[:, 0, 2] = left + TILE / 2 - self.width / 2 + jitter_x
            intrinsic[:, 0, 3] = top + TILE / 2 - self.height / 2 + jitter_y
            _fill(tiles.intrinsic, intrinsic)
            mjw.render(tiles.model, tiles.worlds.data, context)
        if n == 1:
            values = _channels(context).float()
        else:
            # Cut off to bytes as in whole pictures.
            values = wp.to_torch(context.aa_accum).mul(1 / (n * n)).floor_().clamp_(0, 255)
        return values.reshape(-1, 3)

    def _tiles_of(self, size: int) -> _Tiles:
        if size not in self._tiles:
            worlds = self._make_worlds(size, TILE, TILE)
            context = worlds.context
            # Warp refuses several samples a pixel for rays that differ between worlds, as it would
            # cast all along one ray. A kernel compiled to add samples up, which happens on first
            # use, does so for these rays as well; each draw then adds the one that it is aimed at.
            context.use_precomputed_rays = False
            model = copy.copy(self._model)
            intrinsic = wp.zeros((size, 1), dtype=wp.vec4)
            model.cam_intrinsic = intrinsic
            model.cam_sensorsize = wp.array([[TILE, TILE]], dtype=wp.vec2)
            mjw.render(model, worlds.data, context)
            context.samples_per_pixel = 1
            self._tiles[size] = _Tiles(worlds, model, intrinsic)
        return self._tiles[size]

    def _worlds_of(self, size: int) -> _Worlds:
        if size not in self._worlds:
            self._worlds[size] = self._make_worlds(size, self.height, self.width)
        return self._worlds[size]

    def _make_worlds(self, size: int, height: int, width: int) -> _Worlds:
        model = self._scene_model.model
        with wp.ScopedDevice(self._device):
            return _Worlds(
                mjw.put_data(model, self._host, nworld=size),
                mjw.create_render_context(
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
                ),
            )


def _parts(count: int) -> Iterator[slice]:
    """Cuts a batch into powers of two.

    Warp draws all of its worlds however few are asked for, and making worlds takes time: with
    these few sizes, kept, every scene is drawn once and nothing else is.
    """
    start = 0
    while start < count:
        size = min(LARGEST_BATCH, 1 << ((count - start).bit_length() - 1))
        yield slice(start, start + size)
        start += size


def _channels(context: Any) -> Tensor:
    """All pixels that were drawn last, `[P, 3]` uint8; a copy, for Warp draws there again."""
    packed = wp.to_torch(context.rgb_data.view(wp.int32))
    # Packed as 0xAARRGGBB: little-endian bytes are B, G, R, A.
    return packed.view(torch.uint8).view(-1, 4)[:, [2, 1, 0]]


def _fill(array: Any, values: Floats) -> None:
    wp.copy(array, wp.array(np.ascontiguousarray(values), dtype=array.dtype))

"""MuJoCo Warp's batched ray caster: needs no OpenGL, runs on the CPU and on CUDA."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from torch import Tensor

from renderer.backend import BackendError
from renderer.mjcf import SceneModel, build_model, slots_of
from renderer.scene import Scene
from renderer.spec import SceneSpec

# Warp reports every kernel that it loads on standard output, which is not its own to use.
wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)

LARGEST_BATCH = 64  # worlds in one launch; more are drawn in several


@dataclass
class _Worlds:
    """Everything that Warp keeps for a fixed number of scenes."""

    data: Any
    context: Any


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
        self._lock = threading.Lock()  # any thread may draw, one at a time

    def render(self, scene: Scene) -> Tensor:
        """Pictures `[B, 3, H, W]` float32 in [0, 1] of a batch of scenes."""
        return self._draw(scene).permute(0, 3, 1, 2).float().div_(255.0)

    def render_bytes(self, scene: Scene) -> Tensor:
        """Pictures `[B, H, W, 3]` uint8 of a batch of scenes, on the CPU."""
        return self._draw(scene).cpu()

    def _draw(self, scene: Scene) -> Tensor:
        scene = slots_of(scene, self.slots)
        position, rotation = self._scene_model.geom_poses(scene)
        camera_position, camera_axes = self._scene_model.camera_poses(scene)
        parts = []
        for part in _parts(len(scene)):
            count = part.stop - part.start
            with self._lock, wp.ScopedDevice(self._device):
                worlds = self._worlds_of(count)
                _fill(worlds.data.geom_xpos, position[part])
                _fill(worlds.data.geom_xmat, rotation[part])
                _fill(worlds.data.cam_xpos, camera_position[part, None])
                _fill(worlds.data.cam_xmat, camera_axes[part, None])
                mjw.refit_bvh(self._model, worlds.data, worlds.context)
                mjw.render(self._model, worlds.data, worlds.context)
                packed = wp.to_torch(worlds.context.rgb_data.view(wp.int32))
                # Packed as 0xAARRGGBB: little-endian bytes are B, G, R, A.
                channels = packed.view(torch.uint8).view(count, self.height, self.width, 4)
                parts.append(channels[..., [2, 1, 0]])  # a copy: Warp draws there again
        if not parts:
            return torch.empty(0, self.height, self.width, 3, dtype=torch.uint8)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _worlds_of(self, size: int) -> _Worlds:
        if size not in self._worlds:
            model = self._scene_model.model
            with wp.ScopedDevice(self._device):
                self._worlds[size] = _Worlds(
                    mjw.put_data(model, self._host, nworld=size),
                    mjw.create_render_context(
                        model,
                        nworld=size,
                        cam_res=(self.width, self.height),
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
        return self._worlds[size]


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


def _fill(array: Any, values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    wp.copy(array, wp.array(np.ascontiguousarray(values), dtype=array.dtype))

"""MuJoCo's OpenGL renderer, headless: EGL (a GPU or Mesa), OSMesa, or macOS's own.

Scenes of a batch are drawn side by side into one large framebuffer and read back once. Only the
objects that are present are handed to OpenGL, so an empty slot costs nothing.

An OpenGL context is current in one thread at a time, and OpenGL frees by number in whatever context
is current. So a renderer takes its context up for each piece of work and gives back the one before:
renderers do not disturb each other, and any thread may use one (one at a time; others wait).
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renderer.backend import BackendError
from renderer.mjcf import SceneModel, build_model, slots_of
from renderer.scene import Scene
from renderer.spec import SceneSpec
from renderer.windows import MARGIN, Pixels, object_boxes, pack

Floats = NDArray[np.float32]

FRAMEBUFFER = 1024  # px, side of the framebuffer into which a batch is tiled

# What makes an MjvGeom look like its class, wherever it stands.
_COPIED = (
    *("type", "dataid", "objtype", "objid", "category", "matid", "texcoord", "segid", "size"),
    *("rgba", "emission", "specular", "shininess", "reflectance", "modelrbound", "transparent"),
)


def create_context() -> Any:
    """A headless OpenGL context, not current yet.

    Raises:
        BackendError: this machine has none; names what was tried.
    """
    platform_set = "PYOPENGL_PLATFORM" in os.environ
    wish = os.environ.get("MUJOCO_GL", "").lower()
    order = ["cgl"] if platform.system() == "Darwin" else ["egl", "osmesa"]
    if wish in ("egl", "osmesa", "glfw", "cgl"):
        order = [wish]
    failures = []
    for name in order:
        try:
            context = importlib.import_module(f"mujoco.{name}").GLContext(1, 1)
            with context.as_current():
                return context
        except Exception as error:  # each library fails in its own way
            failures.append(f"{name}: {type(error).__name__}: {error}")
            if not platform_set:
                _forget_pyopengl()
    raise BackendError(
        "no headless OpenGL here (" + "; ".join(failures) + "); install libegl1 or libosmesa6, "
        "or use the backend 'raycast', which needs none"
    )


def _forget_pyopengl() -> None:
    """Lets the next library be tried: PyOpenGL binds itself to the first when it is imported."""
    os.environ.pop("PYOPENGL_PLATFORM", None)
    for module in [name for name in sys.modules if name.partition(".")[0] == "OpenGL"]:
        del sys.modules[module]


class OpenGLRenderer:
    """Draws scenes with MuJoCo's own renderer.

    Args:
        spec: the world.
        height: of a picture, px.
        width: of a picture, px.
        supersample: n draws n x n samples a pixel and averages them.
        slots: object slots; the spec's greatest count when not given.

    Raises:
        BackendError: this machine has no headless OpenGL, or not for pictures as large.
    """

    name = "opengl"
    device = torch.device("cpu")

    def __init__(
        self,
        spec: SceneSpec,
        *,
        height: int,
        width: int,
        supersample: int = 1,
        slots: int | None = None,
    ) -> None:
        self.spec = spec
        self.height, self.width, self.supersample = height, width, supersample
        self._scene_model: SceneModel = build_model(spec, slots=slots)
        self.slots = slots or spec.count.max
        tile_height, tile_width = height * supersample, width * supersample
        self._columns = max(1, FRAMEBUFFER // tile_width)
        self._rows = max(1, FRAMEBUFFER // tile_height)
        model = self._scene_model.model
        model.vis.global_.offwidth = self._columns * tile_width
        model.vis.global_.offheight = self._rows * tile_height
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        self._lock = threading.Lock()
        self._context = create_context()
        with self._context.as_current():
            try:
                self._gl = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
            except mujoco.FatalError as error:
                raise BackendError(
                    f"OpenGL cannot draw {tile_width} x {tile_height} px here ({error}); choose a "
                    "smaller picture or supersample, or the backend 'raycast'"
                ) from None
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._gl)
        self._prepare_scene(model)
        self._pixels = np.empty(
            (self._rows * tile_height, self._columns * tile_width, 3), dtype=np.uint8
        )

    def close(self) -> None:
        """Frees the framebuffer and the context; the renderer cannot draw afterwards."""
        if getattr(self, "_context", None) is None:
            return
        with self._lock:
            context, self._context = self._context, None
            if hasattr(self, "_gl"):
                with context.as_current():
                    self._gl.free()
            context.free()

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the interpreter's end the display is gone already, and everything with it, down to
        # the name `sys` in this module.
        if not finalizing():
            self.close()

    def _prepare_scene(self, model: mujoco.MjModel) -> None:
        """Lets MuJoCo fill in one scene with everything; drawing then moves its parts about."""
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 1)
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = 0
        option, perturb = mujoco.MjvOption(), mujoco.MjvPerturb()
        mujoco.mjv_updateScene(
            model, data, option, perturb, camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        for flag in ("SHADOW", "REFLECTION", "FOG", "HAZE"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        # The model has a sky exactly where the background is not black.
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 1
        geoms = {geom.objid: geom for geom in self._scene.geoms[: self._scene.ngeom]}
        classes = len(self.spec.objects)
        self._looks = [
            {name: _copy(getattr(geoms[1 + c], name)) for name in _COPIED} for c in range(classes)
        ]
        table = {name: _copy(getattr(geoms[0], name)) for name in (*_COPIED, "pos", "mat")}
        for name, value in table.items():
            _assign(self._scene.geoms[0], name, value)
        self._shown = [-1] * self.slots  # class whose look each drawn geom has now
        # Views of what changes between pictures, kept: asking for each anew costs more than it.
        eyes = list(self._scene.camera)  # both: MuJoCo averages them
        lights = [light for light in self._scene.lights[: self._scene.nlight] if light.headlight]
        self._eyes = eyes
        self._from = [one.pos for one in (*eyes, *lights)]
        self._towards = [*(eye.forward for eye in eyes), *(light.dir for light in lights)]
        self._up = [eye.up for eye in eyes]
        self._geoms = [(geom, geom.pos, geom.mat) for geom in self._scene.geoms]
        self._pixel = (eyes[0].frustum_top - eyes[0].frustum_bottom) / self.height

    def render(self, scene: Scene) -> Tensor:
        """Pictures `[B, 3, H, W]` float32 in [0, 1] of a batch of scenes."""
        return self.render_bytes(scene).permute(0, 3, 1, 2).float().div_(255.0)

    def render_bytes(self, scene: Scene, *, before: int = 0) -> Tensor:
        """Pictures `[B, H, W, 3]` uint8 of a batch of scenes.

        Args:
            scene: B scenes.
            before: how many scenes of the same batch are drawn elsewhere and come before these.
                Where in the framebuffer a picture is drawn can move an edge by a pixel: this way
                it is drawn where it would be if all of the batch were drawn here.
        """
        scene = slots_of(scene.to("cpu"), self.slots)
        position, rotation = (pose.numpy() for pose in self._scene_model.geom_poses(scene))
        camera_position, camera_axes = (
            pose.numpy() for pose in self._scene_model.camera_poses(scene)
        )
        presence, identity = scene.presence.numpy(), scene.identity.numpy()
        pictures = np.empty((len(scene), self.height, self.width, 3), dtype=np.uint8)
        tiles = self._rows * self._columns
        with self._drawing():
            self._frame(0, 0, self.width, self.height)
            for start in range(-(before % tiles), len(scene), tiles):
                batch = range(max(start, 0), min(start + tiles, len(scene)))
                for b in batch:
                    self._aim(camera_position[b], camera_axes[b])
                    present = np.flatnonzero(presence[b]).tolist()
                    objects = [(k, int(identity[b, k])) for k in present]
                    self._place_all(objects, position[b], rotation[b])
                    mujoco.mjr_render(self._tile(b - start), self._scene, self._gl)
                pictures[batch.start : batch.stop] = self._read(
                    range(batch.start - start, batch.stop - start)
                )
        return torch.from_numpy(pictures)

    def render_windows(self, scene: Scene, windows: Tensor) -> Tensor:
        """Pixels `[P, 3]` in [0, 1] of one window of each scene's picture, packed.

        Each window is drawn through its own part of the camera's frustum, with the objects that can
        be seen in it, next to others in the framebuffer. The same samples as in a whole picture,
        but projected by another matrix: see `WindowRenderer.render_windows`.
        """
        scene, windows = slots_of(scene.to("cpu"), self.slots), windows.cpu()
        model = self._scene_model
        poses = [pose.numpy() for pose in (*model.camera_poses(scene), *model.geom_poses(scene))]
        seen = self._seen(scene, windows)
        frames = windows.tolist()
        page_size = (self._columns * self.width, self._rows * self.height)
        places = pack([(width, height) for _, _, width, height in frames], *page_size)
        page, left, bottom = np.array(places, dtype=np.int64).reshape(-1, 3).T
        # Where each pixel is on its page. OpenGL's rows go upwards, a window's last one first.
        pixels = Pixels.of(windows)
        window, x, y = (value.numpy() for value in (pixels.window, pixels.x, pixels.y))
        beyond = (windows[:, 1] + windows[:, 3]).numpy()
        column = x + (left - windows[:, 0].numpy())[window]
        row = (bottom + beyond - 1)[window] - y
        packed = np.empty((len(window), 3), dtype=np.uint8)
        shown = windows[:, 2:].all(dim=1).numpy()
        with self._drawing():
            for number in np.unique(page[shown]).tolist():
                inside = page[window] == number
                mine = np.flatnonzero(shown & (page == number)).tolist()
                self._draw_page(
                    [frames[n] for n in mine],
                    [places[n][1:] for n in mine],
                    [seen[n] for n in mine],
                    *(pose[mine] for pose in poses),
                )
                drawn = self._read_rows(int(row[inside].max()) + 1)
                packed[inside] = drawn[row[inside], column[inside]]
        return torch.from_numpy(packed).float().div_(255.0)

    def _draw_page(
        self,
        frames: list[list[int]],
        places: list[tuple[int, int]],
        seen: list[list[tuple[int, int]]],
        camera_position: Floats,
        camera_axes: Floats,
        position: Floats,
        rotation: Floats,
    ) -> None:
        """Draws windows (left, top, width, height) at places (left, bottom) of the framebuffer."""
        n = self.supersample
        previous = None
        for index, ((x, y, width, height), (left, bottom)) in enumerate(
            zip(frames, places, strict=True)
        ):
            # Windows of one scene follow each other, mostly seen from one side.
            azimuth = camera_axes[index].tobytes()
            if azimuth != previous:
                self._aim(camera_position[index], camera_axes[index])
                previous = azimuth
            self._frame(x, y, width, height)
            self._place_all(seen[index], position[index], rotation[index])
            tile = mujoco.MjrRect(left * n, bottom * n, width * n, height * n)
            mujoco.mjr_render(tile, self._scene, self._gl)

    def _seen(self, scene: Scene, windows: Tensor) -> list[list[tuple[int, int]]]:
        """Slot and class of each object that can show in the window of its scene."""
        boxes = object_boxes(self.spec, scene, self.height, self.width)
        around = windows[:, None].to(boxes)
        low, high = around[..., :2], around[..., :2] + around[..., 2:]
        meets = (boxes[..., :2] < high + MARGIN) & (boxes[..., 2:] > low - MARGIN)
        found: list[list[tuple[int, int]]] = [[] for _ in range(len(scene))]
        row, slot = meets.all(dim=-1).nonzero(as_tuple=True)
        identity = scene.identity[row, slot]
        for n, k, c in zip(row.tolist(), slot.tolist(), identity.tolist(), strict=True):
            found[n].append((k, c))
        return found

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """This renderer is in this thread's hands, its context current."""
        with self._lock:
            if self._context is None:
                raise RuntimeError("this renderer is closed; open another with open_renderer")
            with self._context.as_current():
                yield

    def _tile(self, index: int) -> mujoco.MjrRect:
        height, width = self.height * self.supersample, self.width * self.supersample
        row, column = divmod(index, self._columns)
        return mujoco.MjrRect(column * width, row * height, width, height)

    def _aim(self, position: Floats, axes: Floats) -> None:
        forward, up = -axes[:, 2], axes[:, 1]
        for view in self._from:
            view[:] = position
        for view in self._towards:
            view[:] = forward
        for view in self._up:
            view[:] = up

    def _frame(self, left: int, top: int, width: int, height: int) -> None:
        """Looks at that part of the picture, px; its sides follow from the viewport's shape."""
        for eye in self._eyes:
            eye.frustum_center = (left + 0.5 * (width - self.width)) * self._pixel
            eye.frustum_top = (0.5 * self.height - top) * self._pixel
            eye.frustum_bottom = (0.5 * self.height - top - height) * self._pixel

    def _place_all(
        self,
        objects: list[tuple[int, int]],
        position: Floats,
        rotation: Floats,
    ) -> None:
        """Puts the table and these objects (slot, class) where the geoms of one scene are."""
        classes = len(self.spec.objects)
        for drawn, (slot, c) in enumerate(objects, start=1):
            index = 1 + slot * classes + c
            self._place(drawn, c, position[index], rotation[index])
        self._scene.ngeom = 1 + len(objects)

    def _place(
        self,
        index: int,
        c: int,
        position: Floats,
        rotation: Floats,
    ) -> None:
        geom, at, turned = self._geoms[index]
        if self._shown[index - 1] != c:
            for name, value in self._looks[c].items():
                _assign(geom, name, value)
            self._shown[index - 1] = c
        at[:], turned[:] = position, rotation

    def _read_rows(self, count: int) -> NDArray[np.uint8]:
        """The framebuffer's lowest rows, as many as make `count` rows of pixels, upwards."""
        n = self.supersample
        area = self._pixels[: count * n]
        rectangle = mujoco.MjrRect(0, 0, area.shape[1], area.shape[0])
        mujoco.mjr_readPixels(area, None, rectangle, self._gl)
        return area if n == 1 else average_blocks(area[None], n)[0]

    def _read(self, wanted: range) -> NDArray[np.uint8]:
        """These tiles of the framebuffer, `[len(wanted), H, W, 3]`."""
        n, columns = self.supersample, self._columns
        height, width = self.height * n, self.width * n
        first = wanted.start // columns
        rows = -(-wanted.stop // columns) - first
        area = self._pixels[: rows * height]
        mujoco.mjr_readPixels(
            area, None, mujoco.MjrRect(0, first * height, columns * width, rows * height), self._gl
        )
        # OpenGL's rows go upwards.
        tiles = area.reshape(rows, height, columns, width, 3)[:, ::-1].swapaxes(1, 2)
        tiles = tiles.reshape(rows * columns, height, width, 3)
        tiles = tiles[wanted.start - first * columns :][: len(wanted)]
        return tiles if n == 1 else average_blocks(tiles, n)


def average_blocks(pictures: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """Means over blocks of n x n pixels, rounded: `[B, nH, nW, 3]` to `[B, H, W, 3]`."""
    total = np.zeros((len(pictures), pictures.shape[1] // n, pictures.shape[2] // n, 3), np.uint16)
    for y in range(n):
        for x in range(n):
            total += pictures[:, y::n, x::n]
    return ((total + n * n // 2) // (n * n)).astype(np.uint8)


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _assign(geom: Any, name: str, value: Any) -> None:
    if isinstance(value, np.ndarray):
        getattr(geom, name)[:] = value
    else:
        setattr(geom, name, value)

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renderer.appearance import Appearance, appearance_of
from renderer.backend import BackendError
from renderer.detail import pixel_tolerance
from renderer.mjcf import SceneModel, build_model, slots_of
from renderer.scene import Scene
from renderer.spec import SceneSpec
from renderer.stage import Bytes, Dress, Floats, Stage
from renderer.windows import MARGIN, Pixels, object_boxes, pack

FRAMEBUFFER = 1024  # px, side of the framebuffer into which a batch is tiled
LARGEST_SUPERSAMPLE = 16  # whose bytes add up to a number of 16 bits


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
        supersample: n draws n x n samples a pixel and averages them, up to 16 x 16.
        slots: object slots; the spec's greatest count when not given.

    Raises:
        BackendError: this machine has no headless OpenGL, or not for pictures as large.
        ValueError: more samples than that.
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
        if supersample > LARGEST_SUPERSAMPLE:
            raise ValueError(
                f"supersample is {supersample}; OpenGL takes up to {LARGEST_SUPERSAMPLE}, choose "
                "that and larger pictures, or the backend 'raycast'"
            )
        self.spec = spec
        self.height, self.width, self.supersample = height, width, supersample
        self.slots = slots or spec.count.max
        self._columns = max(1, FRAMEBUFFER // (width * supersample))
        self._rows = max(1, FRAMEBUFFER // (height * supersample))
        model = build_model(spec, slots=slots, tolerance=pixel_tolerance(spec, height))
        self._lock = threading.Lock()
        self._context = create_context()
        with self._context.as_current():
            self._stage = Stage(
                model,
                height=height,
                width=width,
                slots=self.slots,
                framebuffer=(
                    self._rows * height * supersample,
                    self._columns * width * supersample,
                ),
            )

    def close(self) -> None:
        """Frees the framebuffers and the context; the renderer cannot draw afterwards."""
        if getattr(self, "_context", None) is None:
            return
        with self._lock:
            context, self._context = self._context, None
            if hasattr(self, "_stage"):
                with context.as_current():
                    self._stage.free()
            context.free()

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the interpreter's end the display is gone already, and everything with it, down to
        # the name `sys` in this module.
        if not finalizing():
            self.close()

    def render(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        """Pictures `[B, 3, H, W]` float32 in [0, 1] of a batch of scenes."""
        # In memory as the shape says: what compares them with other pictures is several times
        # faster where both lie alike, and bytes are moved in less time than floats.
        planes = np.empty((len(scene), 3, self.height, self.width), dtype=np.uint8)
        self._draw_into(planes.transpose(0, 2, 3, 1), scene, appearance)
        return torch.from_numpy(planes).float().div_(255.0)

    def render_bytes(
        self, scene: Scene, appearance: Appearance | None = None, *, before: int = 0
    ) -> Tensor:
        """Pictures `[B, H, W, 3]` uint8 of a batch of scenes.

        Args:
            scene: B scenes.
            appearance: of each, where it is not the spec's.
            before: how many scenes of the same batch are drawn elsewhere and come before these.
                Where in the framebuffer a picture is drawn can move an edge by a pixel: this way
                it is drawn where it would be if all of the batch were drawn here.
        """
        pictures = np.empty((len(scene), self.height, self.width, 3), dtype=np.uint8)
        self._draw_into(pictures, scene, appearance, before=before)
        return torch.from_numpy(pictures)

    def _draw_into(
        self, pictures: Bytes, scene: Scene, appearance: Appearance | None, *, before: int = 0
    ) -> None:
        """Fills `pictures` `[B, H, W, 3]`, however they lie in memory."""
        looks = self._looks(scene, appearance)
        dresses = _dresses(looks, len(scene))
        scene = slots_of(scene.to("cpu"), self.slots)
        height, width = self.height * self.supersample, self.width * self.supersample
        objects = _objects(scene, scene.presence)
        tiles = self._rows * self._columns
        with self._drawing():
            stage = self._stage
            stage.frame(0, 0, self.width, self.height)
            poses = _poses(stage.scene_model, scene, looks)
            for start in range(-(before % tiles), len(scene), tiles):
                batch = range(max(start, 0), min(start + tiles, len(scene)))
                for b in batch:
                    position, rotation, camera_position, camera_axes = (pose[b] for pose in poses)
                    stage.dress(dresses[b])
                    stage.aim(camera_position, camera_axes)
                    stage.place(objects[b], position, rotation)
                    row, column = divmod(b - start, self._columns)
                    stage.draw(column * width, row * height, width, height)
                drawn = self._read_tiles(range(batch.start - start, batch.stop - start))
                for b, tile in zip(batch, drawn, strict=True):
                    if looks is None:
                        pictures[b] = tile[..., :3]
                    else:
                        pictures[b] = before_background(tile, looks.background[b].numpy())

    def render_windows(
        self,
        scene: Scene,
        windows: Tensor,
        appearance: Appearance | None = None,
        *,
        part: slice | None = None,
    ) -> Tensor:
        """Pixels `[P, 3]` in [0, 1] of one window of each scene's picture, packed.

        Each window is drawn through its own part of the camera's frustum, with the objects that can
        be seen in it, next to others in the framebuffer. See `WindowRenderer.render_windows` for
        how far they are from whole pictures.

        Args:
            scene: the scenes.
            windows: `[N, 4]`, of these scenes.
            appearance: of each scene, where it is not the spec's.
            part: which of the windows are of these scenes, where others are drawn elsewhere: each
                is drawn where it would be if all of them were drawn here, as in `render_bytes`.
        """
        part = part or slice(0, len(windows))
        looks = self._looks(scene, appearance)
        scene, windows = slots_of(scene.to("cpu"), self.slots), windows.cpu()
        page_size = (self._columns * self.width, self._rows * self.height)
        places = pack([(width, height) for width, height in windows[:, 2:].tolist()], *page_size)
        places, windows = places[part], windows[part]
        seen = _objects(scene, self._meets(scene, windows, looks))
        frames = windows.tolist()
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
            stage = self._stage
            poses, dresses = _poses(stage.scene_model, scene, looks), _dresses(looks, len(scene))
            for number in np.unique(page[shown]).tolist():
                self._draw_page(
                    np.flatnonzero(shown & (page == number)), frames, places, seen, poses, dresses
                )
                inside = page[window] == number
                drawn = self._read_rows(0, int(row[inside].max()) + 1)
                if looks is None:
                    packed[inside] = drawn[row[inside], column[inside], :3]
                else:
                    background = looks.background.numpy()[window[inside]]
                    packed[inside] = before_background(
                        drawn[row[inside], column[inside]], background
                    )
        return torch.from_numpy(packed).float().div_(255.0)

    def _draw_page(
        self,
        which: NDArray[np.int64],
        frames: list[list[int]],
        places: list[tuple[int, int, int]],
        seen: list[list[tuple[int, int]]],
        poses: tuple[Floats, Floats, Floats, Floats],
        dresses: Sequence[Dress | None],
    ) -> None:
        """Draws windows (left, top, width, height) at places (page, left, bottom)."""
        n, stage = self.supersample, self._stage
        position, rotation, camera_position, camera_axes = poses
        # Windows of one scene follow each other, mostly seen from one side.
        turns = np.ones(len(camera_axes), dtype=bool)
        turns[which[1:]] = (camera_axes[which[1:]] != camera_axes[which[:-1]]).any(axis=(1, 2))
        turns[which[1:]] |= (camera_position[which[1:]] != camera_position[which[:-1]]).any(axis=1)
        for index in which.tolist():
            (x, y, width, height), (_, left, bottom) = frames[index], places[index]
            stage.dress(dresses[index])
            if turns[index]:
                stage.aim(camera_position[index], camera_axes[index])
            stage.frame(x, y, width, height)
            stage.place(seen[index], position[index], rotation[index])
            stage.draw(left * n, bottom * n, width * n, height * n)

    def _looks(self, scene: Scene, appearance: Appearance | None) -> Appearance | None:
        if appearance is None:
            return None
        return appearance_of(scene, appearance.to("cpu"), self.slots)

    def _meets(self, scene: Scene, windows: Tensor, looks: Appearance | None) -> Tensor:
        """Which objects can show in the window of their scene: `[N, K]` bool."""
        boxes = object_boxes(self.spec, scene, self.height, self.width, looks)
        around = windows[:, None].to(boxes)
        low, high = around[..., :2], around[..., :2] + around[..., 2:]
        meets = (boxes[..., :2] < high + MARGIN) & (boxes[..., 2:] > low - MARGIN)
        return meets.all(dim=-1)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """This renderer is in this thread's hands, its context current."""
        with self._lock:
            if self._context is None:
                raise RuntimeError("this renderer is closed; open another with open_renderer")
            with self._context.as_current():
                yield

    def _read_rows(self, start: int, stop: int, columns: int | None = None) -> Bytes:
        """These rows of pixels of the framebuffer, upwards: `[stop - start, columns, 4]`."""
        n = self.supersample
        samples = self._stage.read(start * n, (stop - start) * n)
        return average_blocks(samples if columns is None else samples[:, : columns * n], n)

    def _read_tiles(self, wanted: range) -> Iterator[Bytes]:
        """These whole pictures of the framebuffer, `[H, W, 4]` each."""
        height, width, columns = self.height, self.width, self._columns
        first, last = wanted.start // columns, -(-wanted.stop // columns)
        used = min(columns, wanted.stop - first * columns)
        area = self._read_rows(first * height, last * height, used * width)
        for index in wanted:
            row, column = divmod(index - first * columns, columns)
            tile = area[row * height : (row + 1) * height, column * width : (column + 1) * width]
            yield tile[::-1]  # OpenGL's rows go upwards


def average_blocks(samples: Bytes, n: int) -> Bytes:
    """Means over blocks of n x n samples, rounded: `[nH, nW, 4]` to `[H, W, 4]`.

    Sums of `LARGEST_SUPERSAMPLE` squared bytes fit into 16 bits. So four channels are added at
    once, as one number of 64 bits.
    """
    if n == 1:
        return samples
    total = samples[::n].astype(np.uint16)
    for row in range(1, n):
        total += samples[row::n]
    pixels = total.view(np.uint64)  # [H, nW, 1]
    packed = pixels[:, ::n].copy()
    for column in range(1, n):
        packed += pixels[:, column::n]
    mean = packed.view(np.uint16)
    mean += n * n // 2
    mean //= n * n
    return mean.astype(np.uint8)


def before_background(pixels: Bytes, background: Floats) -> Bytes:
    """Pixels `[..., 3]` uint8 before another background than black.

    Args:
        pixels: `[..., 4]`; their alpha says how much of each is something: OpenGL clears it to 0.
        background: `[..., 3]` in [0, 1].
    """
    gaps = (255.0 - pixels[..., 3:]) * background
    shown: Bytes = np.minimum(pixels[..., :3] + gaps.round(), 255.0).astype(np.uint8)
    return shown


def _dresses(looks: Appearance | None, batch: int) -> Sequence[Dress | None]:
    """What each scene is to be dressed in."""
    if looks is None:
        return [None] * batch
    vectors = (looks.light_direction, looks.table, looks.objects)
    numbers = (looks.light, looks.headlight, looks.ambient)
    columns = (*(value.numpy() for value in vectors), *(value.tolist() for value in numbers))
    return [Dress(*row) for row in zip(*columns, strict=True)]


def _objects(scene: Scene, shown: Tensor) -> list[list[tuple[int, int]]]:
    """Slot and class of each object of each scene that is shown, by `[B, K]` bool."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(len(scene))]
    row, slot = shown.nonzero(as_tuple=True)
    identity = scene.identity[row, slot]
    for b, k, c in zip(row.tolist(), slot.tolist(), identity.tolist(), strict=True):
        found[b].append((k, c))
    return found


def _poses(
    model: SceneModel, scene: Scene, looks: Appearance | None
) -> tuple[Floats, Floats, Floats, Floats]:
    """Of each scene: positions and rotations of what the slots show, then of the camera."""
    position, rotation = (pose.numpy() for pose in model.object_poses(scene))
    camera_position, camera_axes = (pose.numpy() for pose in model.camera_poses(scene, looks))
    return position, rotation, camera_position, camera_axes

"""The one interface of all backends, and the choice among them."""

from __future__ import annotations

from typing import Protocol, TypedDict, runtime_checkable

import torch
from torch import Tensor

from renderer.appearance import Appearance
from renderer.cpus import available_cpus
from renderer.scene import Scene
from renderer.spec import SceneSpec

BACKENDS = ("opengl", "raycast")


class BackendError(RuntimeError):
    """A backend cannot draw on this machine; the message says why and what to do."""


class Format(TypedDict):
    """What a renderer draws: the arguments that all backends share."""

    height: int  # px
    width: int  # px
    supersample: int
    slots: int | None


class Renderer(Protocol):
    """Draws batches of scenes of one spec at one size.

    Any thread may use one, whichever opened it; two at a time wait for each other.
    """

    spec: SceneSpec
    name: str
    height: int
    width: int
    device: torch.device  # where the pictures of `render` lie; scenes may lie anywhere

    def render(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        """Pictures `[B, 3, H, W]` float32 in [0, 1] of a batch of scenes.

        Lit, coloured and looked at as the spec says, or as the appearance of each scene does.
        """
        ...

    def render_bytes(self, scene: Scene, appearance: Appearance | None = None) -> Tensor:
        """The same pictures as `[B, H, W, 3]` uint8, on the CPU."""
        ...

    def close(self) -> None:
        """Frees what it holds; it cannot draw afterwards. Once more does no harm."""
        ...


@runtime_checkable
class WindowRenderer(Renderer, Protocol):
    """A renderer that can also draw parts of pictures, for less than whole ones.

    Both backends can. What cannot is a renderer all the same: whoever would draw windows looks
    for this, and draws whole pictures where it is missing.
    """

    def render_windows(
        self, scene: Scene, windows: Tensor, appearance: Appearance | None = None
    ) -> Tensor:
        """Pixels `[P, 3]` in [0, 1]: those of one window of each scene's picture, packed.

        The same as cut out of `render(scene)`, but for what two ways of rounding make of it:
        a sample on an edge may fall to its other side.

        Args:
            scene: N scenes.
            windows: `[N, 4]` int64, left, top, width and height in px, within the picture; of no
                width or height to draw nothing. `renderer.windows.Pixels` has the order.
            appearance: of each scene, where it is not the spec's.
        """
        ...


def open_renderer(
    spec: SceneSpec,
    *,
    height: int,
    width: int,
    backend: str = "auto",
    device: str = "cpu",
    supersample: int = 1,
    slots: int | None = None,
    processes: int | None = 1,
) -> Renderer:
    """Opens a renderer.

    Args:
        spec: the world.
        height: of a picture, px.
        width: of a picture, px.
        backend: `opengl`, `raycast`, or `auto`: what `renderer.choice` measured to be the fastest
            of those that work on this machine.
        device: `cpu`, `cuda` or `cuda:1`, where the pictures of `render` lie.
        supersample: n draws n x n samples a pixel and averages them.
        slots: object slots, the spec's greatest count when not given.
        processes: that draw a batch together, see `renderer.pool`; None for as many as this
            process has cores. On another device than the CPU there is one.

    Raises:
        BackendError: the backend does not work on this machine.
        ValueError: no backend has that name.
    """
    if backend not in (*BACKENDS, "auto"):
        raise ValueError(f"unknown backend {backend!r}; choose auto, {' or '.join(BACKENDS)}")
    if min(height, width, supersample) < 1:
        raise ValueError("height, width and supersample must be at least 1")
    if processes is not None and processes < 1:
        raise ValueError("processes must be at least 1, or None for as many as there are cores")
    if device != "cpu" and (processes or 1) > 1:
        raise ValueError("several processes hand over pictures on the CPU; use processes=1")
    form = Format(height=height, width=width, supersample=supersample, slots=slots)
    if backend != "auto":
        return _open(spec, backend, device, processes, form)
    from renderer.choice import choose_backend
    from renderer.pool import WorkerError

    try:
        return _open(spec, choose_backend(spec, form, device=device), device, processes, form)
    except WorkerError:
        raise
    except BackendError:  # what worked when it was measured may have gone since
        name = choose_backend(spec, form, device=device, anew=True)
        return _open(spec, name, device, processes, form)


def _open(
    spec: SceneSpec, backend: str, device: str, processes: int | None, form: Format
) -> Renderer:
    from renderer.pool import PooledRenderer

    if processes is None:
        processes = available_cpus() if device == "cpu" else 1
    if processes == 1:
        return open_backend(spec, form, backend=backend, device=device)
    return PooledRenderer(spec, form, backend=backend, processes=processes)


def open_backend(spec: SceneSpec, form: Format, *, backend: str, device: str) -> WindowRenderer:
    """Opens the one backend of that name, in this process; raises as `open_renderer`."""
    # Each backend is imported when it is wanted: Warp takes a second, OpenGL may be absent.
    if backend == "opengl":
        if device != "cpu":
            raise ValueError("the backend 'opengl' hands over pictures on the CPU; use 'raycast'")
        from renderer.opengl import OpenGLRenderer

        return OpenGLRenderer(spec, **form)
    from renderer.raycast import RaycastRenderer

    return RaycastRenderer(spec, device=device, **form)

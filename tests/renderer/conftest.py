"""Small worlds, and both backends to draw them with, on every device that is there."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from renderer import BackendError, Renderer, Scene, SceneSpec, open_renderer

SMALL_WORLD: dict[str, Any] = {
    "name": "small",
    "table": {"half_size": [0.5, 0.5], "colour": [0.5, 0.4, 0.3]},
    "camera": {"distance": 1.5, "elevation_deg": 40, "fovy_deg": 45, "azimuth_deg": [-40, 40]},
    "objects": [
        {"name": "cube", "shape": "box", "size": [0.1, 0.1, 0.1], "colour": [1, 0.2, 0.1]},
        {"name": "ball", "shape": "sphere", "size": [0.1], "colour": [0.3, 0.8, 0.1]},
    ],
    "count": {"max": 2},
    "placement": {"extent": [0.4, 0.4]},
}

# Draws scenes of a spec: (spec, backend, scene, height=..., width=..., supersample=...).
Draw = Callable[..., Tensor]


@lru_cache(maxsize=1)
def why_no_opengl() -> str | None:
    from renderer.opengl import create_context

    try:
        create_context().free()
    except BackendError as error:
        return str(error)
    return None


@pytest.fixture
def opengl() -> None:
    """What uses this needs OpenGL."""
    reason = why_no_opengl()
    if reason is not None:
        pytest.skip(reason)


def _if_there(name: str, request: pytest.FixtureRequest) -> str:
    """The same name of a backend and its device; skips the test where one is not there."""
    if name == "opengl":
        request.getfixturevalue("opengl")
    if name.endswith("-cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return name


@pytest.fixture(params=["opengl", "raycast", "raycast-cuda"])
def backend(request: pytest.FixtureRequest) -> str:
    """A backend and its device, as `open_on` and `draw` understand them."""
    return _if_there(request.param, request)


@pytest.fixture(params=["raycast", "raycast-cuda"])
def rays(request: pytest.FixtureRequest) -> str:
    """Ray casting on each device, likewise."""
    return _if_there(request.param, request)


def _open_on(spec: SceneSpec, backend: str, **more: Any) -> Renderer:
    name, _, device = backend.partition("-")
    return open_renderer(spec, backend=name, device=device or "cpu", **more)


@pytest.fixture
def open_on() -> Callable[..., Renderer]:
    """`open_renderer` with a backend and its device in one word, such as `raycast-cuda`."""
    return _open_on


@pytest.fixture
def world() -> dict[str, Any]:
    """The small world as plain data, free to be changed."""
    return copy.deepcopy(SMALL_WORLD)


@pytest.fixture
def draw() -> Iterator[Draw]:
    """Pictures `[B, H, W, 3]` uint8 of scenes; renderers are kept for the test, then closed."""
    renderers: dict[Any, Renderer] = {}

    def draw(spec: SceneSpec, backend: str, scene: Scene, **size: int) -> Tensor:
        size = {"height": 64, "width": 64, **size}
        key = (id(spec), backend, *sorted(size.items()))
        if key not in renderers:
            renderers[key] = _open_on(spec, backend, **size)
        return renderers[key].render_bytes(scene)

    yield draw
    for renderer in renderers.values():
        renderer.close()


@pytest.fixture
def foreign_meshes() -> Path:
    """Other people's meshes, in the data folder that AIR_DATA names."""
    folder = Path(os.environ.get("AIR_DATA", "")) / "meshes"
    if "AIR_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("AIR_DATA does not name a folder with meshes/")
    return folder

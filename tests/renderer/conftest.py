"""Small worlds, and both backends to draw them with."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
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


@pytest.fixture(params=["opengl", "raycast"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "opengl":
        request.getfixturevalue("opengl")
    return str(request.param)


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
            renderers[key] = open_renderer(spec, backend=backend, **size)  # type: ignore[arg-type]
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

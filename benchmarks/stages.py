"""The parts of a picture's time and of a gradient's, told apart by leaving things out.

Nothing is guessed from a profiler's samples: a batch is drawn with and without objects, in full
size and in a single pixel, and with the drawing itself left out, and the parts are differences
between these times. They add up to the time of the whole by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import product
from typing import Any
from unittest import mock

import mujoco
import mujoco_warp
import torch

from benchmarks.derivative import gradient_of_noise
from benchmarks.part import Settings
from benchmarks.timing import take_turns
from renderer import Renderer, Scene
from renderer.backend import WindowRenderer
from renderer.differences import Steps, freedoms, perturb, plan
from renderer.windows import change_windows

# What draws in each backend, down to the last line of its own code.
DRAWING = {
    "opengl": ((mujoco, "mjr_render"),),
    "raycast": ((mujoco_warp, "render"), (mujoco_warp, "refit_bvh")),
}

# Size of the pictures in the experiments; objects or none; drawn, or everything but drawn.
WHOLE, PIXEL = "whole", "pixel"
Experiment = tuple[str, bool, bool]

STAGES = {
    "python": "Python",
    "calls": "calls",
    "geometry": "geometry",
    "background": "pixels of the table",
    "objects": "pixels of objects",
    "hand_over": "hand-over",
}
GRADIENT_STAGES = {
    "picture": "picture",
    "windows_of_a_pixel": "windows of a pixel",
    "pixels": "their other pixels",
    "plan": "planning and adding up",
}


def experiments(
    whole: Renderer, pixel: Renderer, scene: Scene, settings: Settings
) -> dict[Experiment, float]:
    """Seconds of a batch in all eight ways: size, with objects or without, drawn or not."""
    bare = Scene(torch.zeros_like(scene.presence), *list(scene.tensors())[1:])
    work: dict[str, Callable[[], object]] = {}
    keys: dict[str, Experiment] = {}
    for size, objects, drawn in product((WHOLE, PIXEL), (True, False), (True, False)):
        name = f"{size}, objects {objects}, drawn {drawn}"
        keys[name] = (size, objects, drawn)
        renderer, shown = whole if size == WHOLE else pixel, scene if objects else bare
        draw = partial(renderer.render_bytes, shown)
        work[name] = draw if drawn else partial(_without_drawing, whole.name, draw)
    timings = take_turns(work, settings.rounds_of(len(scene)), patience=settings.patience)
    return {keys[name]: timing.median for name, timing in timings.items()}


def stages(seconds: Mapping[Experiment, float]) -> dict[str, float]:
    """The parts of `seconds[WHOLE, True, True]`, which they add up to; noise can make one negative.

    Args:
        seconds: of each experiment: size, whether with objects, whether drawn.
    """
    idle = {size: seconds[size, True, False] for size in (WHOLE, PIXEL)}
    drawing = {
        (size, objects): seconds[size, objects, True] - seconds[size, objects, False]
        for size, objects in product((WHOLE, PIXEL), (True, False))
    }
    background = drawing[WHOLE, False] - drawing[PIXEL, False]
    return {
        "python": idle[PIXEL],
        "calls": drawing[PIXEL, False],
        "geometry": drawing[PIXEL, True] - drawing[PIXEL, False],
        "background": background,
        "objects": drawing[WHOLE, True] - drawing[PIXEL, True] - background,
        "hand_over": idle[WHOLE] - idle[PIXEL],
    }


def gradient_parts(renderer: Renderer, scene: Scene, settings: Settings) -> dict[str, Any]:
    """Seconds of a gradient and of its parts: pictures, windows, the rest.

    `forward` differences to position and yaw. The windows are drawn on their own, as they are and
    cut down to the pixel in the middle of each.
    """
    steps = Steps.for_size(renderer.spec, renderer.height)
    differences = plan(
        freedoms(scene, renderer.spec.symmetry_orders, azimuth=False), steps, "forward"
    )
    moved = perturb(scene, differences)
    size = (renderer.height, renderer.width)
    windows = change_windows(renderer.spec, scene, differences, moved, *size)
    middle = windows.clone()
    middle[:, :2] += middle[:, 2:] // 2
    middle[:, 2:] = middle[:, 2:].clamp_max(1)
    assert isinstance(renderer, WindowRenderer)
    timings = take_turns(
        {
            "gradient": gradient_of_noise(
                renderer, scene, scheme="forward", azimuth=False, seed=settings.seed
            ),
            "picture": partial(renderer.render, scene),
            "windows": partial(renderer.render_windows, moved, windows),
            "middle": partial(renderer.render_windows, moved, middle),
        },
        settings.rounds,
        patience=settings.patience,
    )
    seconds = {name: timing.median for name, timing in timings.items()}
    parts = {
        "picture": seconds["picture"],
        "windows_of_a_pixel": seconds["middle"],
        "pixels": seconds["windows"] - seconds["middle"],
        "plan": seconds["gradient"] - seconds["picture"] - seconds["windows"],
    }
    return {
        "seconds": seconds["gradient"],
        "parts": parts,
        "windows_per_scene": len(windows) / len(scene),
        "window_area": float(windows[:, 2:].prod(dim=1).double().mean()) / (size[0] * size[1]),
    }


class _Stub:
    """Takes the place of a function that draws; does nothing, and quickly."""

    called = False

    def __call__(self, *_: object) -> None:
        self.called = True


def _without_drawing(backend: str, work: Callable[[], object]) -> None:
    """Does all that `work` does but for the calls that draw."""
    stubs = {(module, name): _Stub() for module, name in DRAWING[backend]}
    with ExitStack() as stack:
        for (module, name), stub in stubs.items():
            stack.enter_context(mock.patch.object(module, name, stub))
        work()
    for (module, name), stub in stubs.items():
        if not stub.called:
            raise RuntimeError(
                f"{backend} does not draw by {module.__name__}.{name} any more; "
                "name in benchmarks/stages.py what it draws by"
            )

"""How a gradient is taken, drawn with real pictures: what moves, and what that changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from benchmarks.crowds import Crowd
from benchmarks.derivative import gradient
from benchmarks.plots import GREEN, SKY, STYLE, YELLOW, save
from renderer import Scene, open_renderer
from renderer.camera import project
from renderer.differences import Differences, Steps, freedoms, perturb, plan
from renderer.prior import sample
from renderer.windows import change_windows

SIZE = 64  # px
SEED = 0
SHIFT = 0.05  # m, about, from where the objects are to where they should be
COLOURS = (SKY, YELLOW, GREEN)


def draw(folder: Path) -> Path:
    """Draws a picture with its windows, what one move changes, and where the gradient leads.

    By rays, which need no OpenGL, so that it comes out the same everywhere.
    """
    spec = Crowd(3).spec()
    renderer = open_renderer(spec, height=SIZE, width=SIZE, backend="raycast", supersample=4)
    generator = torch.Generator().manual_seed(SEED)
    scene = sample(spec, 1, generator=generator)
    goal = replace(
        scene, position=scene.position + SHIFT * torch.randn(1, 3, 2, generator=generator)
    )
    picture, wanted = renderer.render(scene), renderer.render(goal)
    free = freedoms(scene, spec.symmetry_orders, azimuth=False)
    moves = plan(free, Steps.for_size(spec, SIZE), "forward")
    windows = change_windows(spec, scene, moves, perturb(scene, moves), SIZE, SIZE)
    # The mean squared difference to the goal; its gradient to the picture goes back.
    upstream = 2 * (picture - wanted) / picture.numel()
    position, *_ = gradient(renderer, scene, upstream, scheme="central", azimuth=False)

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.8), layout="constrained")
        first, second, third = figure.subplots(1, 3)
        first.set_title("a picture and the windows\nof its moves")
        _show(first, picture)
        slots = moves.slot(scene.slots)[0].tolist()
        for slot, window in zip(slots, windows.tolist(), strict=True):
            _frame(first, window, COLOURS[slot])

        second.set_title("what one move changes")
        chosen = _widest(moves, windows)
        change = renderer.render(perturb(scene, moves[chosen])) - picture
        second.imshow(change[0].mean(0).numpy(), cmap="RdBu", vmin=-0.4, vmax=0.4)
        _frame(second, windows[chosen][0].tolist(), COLOURS[slots[int(chosen[0])]])

        third.set_title("the goal, and downhill\nalong the gradient")
        _show(third, wanted)
        _arrows(third, scene, position)
        for axes in (first, second, third):
            axes.set(xlim=(-0.5, SIZE - 0.5), ylim=(SIZE - 0.5, -0.5), xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
        return save(figure, folder / "rendering-windows.svg")


def _widest(moves: Differences, windows: Tensor) -> Tensor:
    """The move to the right whose window has most pixels: an index `[1]`."""
    area = windows[:, 2:].prod(dim=1) * (moves.freedom % 2 == 0) * (moves.freedom < 6)
    return area.argmax()[None]


def _show(axes: Axes, picture: Tensor) -> None:
    axes.imshow(picture[0].permute(1, 2, 0).numpy(), interpolation="nearest")


def _frame(axes: Axes, window: list[int], colour: str) -> None:
    left, top, width, height = window
    axes.add_patch(
        Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=colour, lw=1.2)
    )


def _arrows(axes: Axes, scene: Scene, position: Tensor) -> None:
    """From each object against its gradient, the longest arrow a quarter of the picture."""
    camera = Crowd(3).spec().camera
    downhill = -position / position.norm(dim=-1).max() * 0.25

    def pixels(points: Tensor) -> Any:
        flat = torch.cat([points, torch.zeros_like(points[..., :1])], dim=-1)
        return project(camera, scene.azimuth, flat, SIZE, SIZE)[0].numpy() - 0.5

    start, end = pixels(scene.position), pixels(scene.position + downhill)
    for (x, y), (dx, dy), colour in zip(start, np.subtract(end, start), COLOURS, strict=True):
        axes.plot(x, y, "o", color=colour, markersize=3)
        style = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (x + dx, y + dy), (x, y), arrowprops=style)

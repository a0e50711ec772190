"""What models do, as pictures: their explanations, their learning, how they scan a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

from inference.checkpoint import Checkpoint, load_checkpoint
from renderer.appearance import Appearance
from renderer.backend import open_renderer
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec
from training.dreams import generator_for
from training.inferred import BATCH
from training.results import METHODS, Result

SHOWN = 10  # images: the first ones of an evaluation, not chosen ones
PIXELS = 128  # of a picture that is shown
SCANNED = 4000  # scenes whose scanning is counted
SEEDS_SHOWN = 3
RED = (0.9, 0.05, 0.05)

# The colours of Okabe and Ito, which people of every colour vision tell apart, and some more.
COLOURS = (
    "#0072B2", "#D55E00", "#CC79A7", "#882255", "#009E73", "#117733", "#56B4E9", "#6E6E6E",
    "#E69F00", "#999933", "#000000",
)  # fmt: skip
LOOKS = dict(zip(METHODS, COLOURS, strict=True))
GAP = 3  # px, between pictures of a row

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
}


def save(figure: Figure, file: Path) -> Path:
    """Writes a figure as PNG."""
    figure.savefig(file, dpi=110, metadata={"Software": None}, facecolor="white")
    return file


def explanations(results: Sequence[Result], descent: dict[str, Any] | None, seed: int) -> Figure:
    """Images above what each method explains them by, drawn again (figures 10, 11 and 19).

    Args:
        results: of one experiment, models at hand; of each method the first seed is shown.
        descent: what direct descent found on the same images, if it was tried.
        seed: of the evaluation whose first images are shown.
    """
    firsts = list({result.name: result for result in reversed(results)}.values())[::-1]
    models = [_load(result) for result in firsts]
    spec = models[0].spec
    true = sample(spec, BATCH, generator=generator_for("evaluate", seed))[:SHOWN]
    rows = {"image": true}
    for result, model in zip(firsts, models, strict=True):
        rows[result.name] = infer(model, true)
    if descent is not None and descent["seed"] == seed:
        found = [example["descent"] for example in descent["examples"][:SHOWN]]
        rows[METHODS["descent"]] = Scene.of_records(spec, found)
    renderer = open_renderer(spec, height=PIXELS, width=_width(spec, PIXELS), supersample=2)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 0.95 * len(rows)), layout="constrained")
        for axes, (name, scene) in zip(_column(figure, len(rows)), rows.items(), strict=True):
            axes.imshow(_side_by_side(renderer.render(scene)))
            axes.set_axis_off()
            axes.set_title(name, loc="left", pad=2)
    return figure


def learning(results: Sequence[Result]) -> Figure:
    """Count accuracy and reconstruction error over training, a line a seed (figure 12, middle)."""
    panels = {
        "count_accuracy": "count accuracy",
        "recall": "recall",
        "reconstruction_mse": "reconstruction error",
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 2.7), layout="constrained")
        columns = figure.subplots(1, len(panels))
        for axes, (key, label) in zip(columns, panels.items(), strict=True):
            named: set[str] = set()
            for result in results:
                points = [row for row in result.training["history"] if row.get(key) is not None]
                batch = result.training["images"] / result.training["steps"]
                axes.plot(
                    [row["step"] * batch / 1e3 for row in points],
                    [row[key] for row in points],
                    color=LOOKS[result.method],
                    label=None if result.method in named else METHODS[result.method],
                    alpha=0.85,
                )
                named.add(result.method)
            axes.set_xlabel("thousand images seen")
            axes.set_title(label)
            axes.grid(visible=True)
            if key == "reconstruction_mse":
                axes.set_yscale("log")
            else:
                axes.set_ylim(0, 1.02)
        handles, labels = columns[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def scanning(results: Sequence[Result]) -> Figure | None:
    """Where on the table each step attends, and to what (figure 12, right), a row a seed.

    Nothing where there is one step only.
    """
    shown = results[:SEEDS_SHOWN]
    models = [_load(result) for result in shown]
    spec = models[0].spec
    steps = spec.count.max
    if steps == 1:
        return None
    true = sample(spec, SCANNED, generator=generator_for("scanning"))
    reach = max(spec.placement.extent) / 2 + 0.05
    with mpl.rc_context(STYLE):
        size = (1.9 * (steps + 1) + 0.6, 1.8 * len(shown) + 0.2)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(shown), steps + 1, squeeze=False)
        for line, result, model in zip(grid, shown, models, strict=True):
            found = infer(model, true)
            for step in range(steps):
                there = found.presence[:, step]
                x, y = found.position[there, step].T.numpy()
                axes: Axes = line[step]
                axes.hist2d(x, y, bins=14, range=[[-reach, reach]] * 2, cmap="magma")
                axes.set(xticks=[], yticks=[], aspect="equal", title=f"step {step + 1}")
            line[0].set_ylabel(f"{METHODS[result.method]}\nseed {result.seed}", fontsize=7)
            share = torch.stack(
                [
                    torch.bincount(
                        found.identity[found.presence[:, step], step], minlength=len(spec.objects)
                    ).float()
                    for step in range(steps)
                ],
                1,
            )
            share = share / share.sum(0).clamp_min(1)
            axes = line[steps]
            axes.imshow(share.numpy(), cmap="magma", vmin=0, vmax=1, aspect="auto")
            axes.set_yticks(range(len(spec.objects)), spec.class_names)
            axes.set_xticks(range(steps), [str(step + 1) for step in range(steps)])
            axes.yaxis.tick_right()
            axes.set_title("object by step")
            for c in range(len(spec.objects)):
                for step in range(steps):
                    value = float(share[c, step])
                    colour = "black" if value > 0.6 else "white"
                    axes.text(
                        step, c, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7
                    )
    return figure


def overlay(result: Result, seed: int, *, examples: int = 4) -> Figure:
    """Scenes from another side, what was inferred laid over them in red (figures 12 left, 18)."""
    model = _load(result)
    spec = model.spec
    camera = spec.camera.model_copy(
        update={
            "elevation_deg": 62.0,
            "azimuth_deg": (55.0, 55.0),
            "distance": 1.15 * spec.camera.distance,
        }
    )
    beside = spec.model_copy(update={"camera": camera})
    true = sample(spec, BATCH, generator=generator_for("evaluate", seed))
    true = true[torch.argsort(true.count, descending=True, stable=True)[:examples]]
    found = infer(model, true)
    renderer = open_renderer(beside, height=240, width=_width(beside, 240), supersample=3)
    there = renderer.render(_seen_from(true, camera.azimuth_deg[0]))
    neutral = Appearance.neutral(beside, examples)
    red = replace(neutral, objects=torch.tensor(RED).expand(neutral.objects.shape))
    said = renderer.render(_seen_from(found, camera.azimuth_deg[0]), red)
    views = 0.5 * there + 0.5 * said
    front = open_renderer(spec, height=240, width=_width(spec, 240), supersample=2).render(true)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 9.5 * 2 / examples + 0.3), layout="constrained")
        for axes, name, pictures in zip(
            _column(figure, 2),
            ("what the camera sees", "from aside: the truth, and the inferred in red"),
            (front, views),
            strict=True,
        ):
            axes.imshow(_side_by_side(pictures))
            axes.set_axis_off()
            axes.set_title(name, loc="left", pad=2)
    return figure


def infer(model: Checkpoint, true: Scene) -> Scene:
    """What a model infers of pictures of scenes, of its own size."""
    network = model.posterior.config
    renderer = open_renderer(model.spec, height=network.height, width=network.width, supersample=2)
    found = [model.posterior.infer(renderer.render(some)).scene for some in _batches(true)]
    return Scene.cat(found)


def _load(result: Result) -> Checkpoint:
    assert result.folder is not None  # pictures are of models at hand
    return load_checkpoint(result.folder)


def _side_by_side(pictures: Tensor) -> np.ndarray[Any, Any]:
    """Pictures `[N, 3, H, W]` in [0, 1] as one row with white between, `[H, W', 3]`."""
    spaced = pad(pictures, (0, GAP), value=1.0)
    row = torch.cat(list(spaced), dim=2)[..., :-GAP]
    values: np.ndarray[Any, Any] = row.permute(1, 2, 0).clamp(0, 1).numpy()
    return values


def _batches(scene: Scene) -> list[Scene]:
    return [scene[start : start + BATCH] for start in range(0, len(scene), BATCH)]


def _seen_from(scene: Scene, azimuth_deg: float) -> Scene:
    azimuth: Tensor = torch.full_like(scene.azimuth, math.radians(azimuth_deg))
    return replace(scene, azimuth=azimuth)


def _width(spec: SceneSpec, height: int) -> int:
    return max(1, round(height * spec.camera.aspect))


def _column(figure: Figure, rows: int) -> list[Axes]:
    return list(figure.subplots(rows, 1, squeeze=False)[:, 0])

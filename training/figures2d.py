"""The counterparts of the paper's 2D figures: reconstructions, policies, learning, samples."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from inference.checkpoint2d import Checkpoint2d
from inference.glimpse import corners
from training.digits import CANVAS
from training.figures import COLOURS, STYLE
from training.image_run import PANELS
from training.panels import windows_panel
from training.picture_evaluation import FRESH
from training.picture_experiments import PictureExperiment
from training.pictures import load_pictures
from training.results2d import Finished

SHOWN = 12  # images in a row
POLICY_IMAGES = 2_000
STAGES = 5  # of training, in a column

Counts = tuple[int, ...]  # how many objects an image shows, each as likely


def reconstructions(models: Sequence[Checkpoint2d], counts: Counts) -> Tensor:
    """Images above what models make of them, windows in step order red, green and blue (figure 4).

    Args:
        models: a pair of rows for each, on the same images.
        counts: of the images; the first ones of a set, not chosen ones.
    """
    rows = []
    for model in models:
        image = _images(model, counts, SHOWN)
        rows.append(windows_panel(image, model.model.infer(image)))
    return torch.cat(rows, 1)


def policies(models: Sequence[Checkpoint2d]) -> Tensor:
    """Heatmaps of the centres of the windows that are used, steps by colour (figure 5, right)."""
    maps = []
    for model in models:
        heat = np.zeros((CANVAS, CANVAS, 3))
        image = _images(model, _own_counts(model), POLICY_IMAGES)
        for part in image.split(250):
            estimate = model.model.infer(part)
            left, top, width, height = corners(estimate.where.mean, CANVAS).unbind(-1)
            column, row = (left + width / 2).long(), (top + height / 2).long()
            inside = (column >= 0) & (column < CANVAS) & (row >= 0) & (row < CANVAS)
            for step in range(min(3, model.model.config.steps)):
                used = (estimate.count > step) & inside[:, step]
                places = (place[used, step].numpy() for place in (row, column))
                np.add.at(heat[..., step], tuple(places), 1.0)
        maps.append(torch.from_numpy(heat / heat.max((0, 1)).clip(1)).permute(2, 0, 1))
    return torch.cat([one.repeat_interleave(4, 1).repeat_interleave(4, 2) for one in maps], 2)


def stages(model: Checkpoint2d) -> Tensor | None:
    """Some of the panels that a run left, from its beginning to its end (figure 6)."""
    paths = sorted((model.folder / PANELS).glob("*.png"))
    if not paths:
        return None
    chosen = np.unique(np.geomspace(1, len(paths), STAGES).round().astype(int)) - 1
    pictures = [
        torch.from_numpy(np.array(Image.open(paths[i]))).permute(2, 0, 1) / 255 for i in chosen
    ]
    half = pictures[0].shape[1] // 2
    return torch.cat([pictures[0][:, :half], *(picture[:, half:] for picture in pictures)], 1)


def samples(model: Checkpoint2d) -> Tensor:
    """What a model makes up (figure 14c).

    As many objects as its images show: the prior, which favours few, would leave most empty.
    """
    some = [n for n in _own_counts(model) if n]
    shown = torch.tensor((some * SHOWN)[:SHOWN])
    made_up = model.model.imagine(shown, generator=torch.Generator().manual_seed(0))
    return torch.cat([image.expand(3, -1, -1) for image in made_up], 2)


def curves(runs: Sequence[Finished]) -> Figure:
    """Count accuracy and bound of held-out images over training, a line a seed (figure 5, left)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3), layout="constrained")
        axes = figure.subplots(1, 2)
        for run, colour in zip(runs, COLOURS * len(runs), strict=False):
            history = run.row["history"]
            steps = [row["step"] for row in history]
            for axis, key in zip(axes, ("count_accuracy", "bound"), strict=True):
                values = [row[key] for row in history]
                axis.plot(steps, values, color=colour, label=f"seed {run.seed}")
        for axis, label in zip(axes, ("count accuracy, held out", "bound, nats"), strict=True):
            axis.set(xlabel="steps", ylabel=label)
            axis.grid(visible=True)
        axes[0].set_ylim(0, 1.02)
        axes[1].legend()
    return figure


def _images(model: Checkpoint2d, counts: Counts, n: int) -> Tensor:
    data = _experiment(model).data.model_copy(update={"counts": counts, "images": n, "seed": FRESH})
    return load_pictures(data, "test").batch(torch.arange(n))


def _own_counts(model: Checkpoint2d) -> Counts:
    return _experiment(model).data.counts


def _experiment(model: Checkpoint2d) -> PictureExperiment:
    return PictureExperiment.model_validate(model.config.training["experiment"])

"""The page's section on Omniglot: steps like strokes (figure 9), held against an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference.checkpoint2d import Checkpoint2d, load_checkpoint2d
from training.measured import ERROR, Measured, commands, of
from training.page import markdown, number, picture
from training.panels import save_panel, windows_panel
from training.picture_evaluation import evaluation_set
from training.picture_experiments import PICTURE_EXPERIMENTS
from training.pictures import load_pictures
from training.stroke_evaluation import complexity_of

SHOWN = 14  # characters, from the simplest to the most complex of so many more
CHOSEN_FROM = 200
SCALE = 3  # px that a px of the images becomes

AIR, RIVAL = ("omniglot-dair", "omniglot"), "omniglot-vae"

INTRODUCTION = """\
Characters of alphabets that training did not see, in up to four steps (section 3.2), by DAIR
(`omniglot-dair`), whose steps see what is not explained yet, and by AIR with its memory
(`omniglot`). *Length* is that of the lines, thinned at the drawing's own 105×105 px, and *nodes*
are their ends and meeting points: both are of the drawing alone. The correlation is Spearman's, of
the steps used with these, over drawings. Errors are the mean square of a pixel, in grey levels of
1: with as many steps as are used, and with each number of them. The plain autoencoder
(`omniglot-vae`) has as many numbers for an image as four steps have, learned from the same images,
and had the time of one processor that the table says; *at best* is its least error while it
learned, on a thousand such images.
"""


def strokes_section(measured: Sequence[Measured], images: Path) -> list[str]:
    """What AIR makes of characters, every seed, as Markdown; nothing where none was evaluated.

    Args:
        measured: the runs.
        images: folder for the pictures.

    Raises:
        DataError: Omniglot is not there.
    """
    runs = of(measured, *AIR)
    if not runs:
        return []
    steps = range(1, len(runs[0].figures["steps_shares"]))
    header = (
        *("model", "seed", "training steps", "processor s", "bound, nats"),
        *("correlation with length", "with nodes"),
        *(f"share with {n} steps" for n in (0, *steps)),
        "error",
        *(f"error at {n}" for n in steps),
    )
    rows = [_row(run) for run in runs]
    for rival in of(measured, RIVAL):
        error = number(rival.figures[ERROR], ".5f")
        least = number(rival.row["least_error"], ".5f")
        unknown = ["–"] * (3 + len(steps))
        rows.append([*rival.cells(), *unknown, f"{error} (at best {least})", *["–"] * len(steps)])
    text = ["## Omniglot\n", INTRODUCTION, markdown(header, rows)]
    for run in runs:
        file = images / f"2d-{run.name}-steps-{run.seed}.png"
        if run.folder is not None:
            save_panel(_steps_panel(load_checkpoint2d(run.folder)), file)
        if file.is_file():
            caption = (
                "Characters, simple ones to the left; below them what is drawn after each step "
                f"taken, windows in the colours of their steps. Seed {run.seed}."
            )
            text.append(picture(file, caption, about=run.name))
    return [*text, commands(of(measured, *AIR, RIVAL))]


def _row(run: Measured) -> list[str]:
    figures = run.figures
    correlation = figures["rank_correlation"]
    return [
        *run.cells(),
        *(number(correlation[name], ".3f") for name in ("length", "nodes")),
        *(number(share, ".3f") for share in figures["steps_shares"].values()),
        number(figures[ERROR], ".5f"),
        *(number(value, ".5f") for value in figures[f"{ERROR}_by_step"][1:]),
    ]


def _steps_panel(checkpoint: Checkpoint2d) -> Tensor:
    """Characters above their reconstructions at every step (figure 9): `[3, h, w]`."""
    characters = PICTURE_EXPERIMENTS[AIR[0]].data
    data = evaluation_set(characters, images=CHOSEN_FROM, seed=0)
    order = np.argsort(complexity_of(data).length, kind="stable")
    chosen = order[np.linspace(0, CHOSEN_FROM - 1, SHOWN).round().astype(int)]
    image = load_pictures(data, "test").batch(torch.from_numpy(chosen))
    estimate = checkpoint.model.infer(image)
    half = SCALE * image.shape[-1]
    rows = [windows_panel(image, estimate, scale=SCALE)[:, :half]]
    for step in range(1, checkpoint.model.config.steps + 1):
        # Where a step was not taken there is nothing to see.
        shown = torch.where(estimate.count >= step, step, 0)
        chances = functional.one_hot(shown, estimate.count_probabilities.shape[1]).float()
        after = replace(estimate, count_probabilities=chances)
        rows.append(windows_panel(image, after, scale=SCALE)[:, half:])
    return torch.cat(rows, 1)

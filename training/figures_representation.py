"""The page's section on what AIR's inferences are worth to whoever has few labels (figure 8)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from training.figures import STYLE, save
from training.measured import Measured, commands
from training.page import markdown, number, picture

TITLES = {"sum": "sum of two digits, 19 classes", "order": "do they ascend, 2 classes"}
SEEN = {"inferences": "AIR's inferences, 4 layers", "pixels": "pixels, convolutional network"}

INTRODUCTION = """\
Images of exactly two digits. Digits are in the order in which one reads: from left to right by the
middles of what they cover; they ascend if the first is the smaller one (two that are the same do
not). From AIR's inferences (of each step whether there is something, where, and what; learned
without labels) a network of four layers of 512 units learns the answer, and from pixels the paper's
three convolutions of 64 filters of 5×5 and a layer of 512. The convolutions go in strides of two,
which the paper does not say. Both learn until they fit their labelled images, by the same optimizer
and for as many steps at most. What AIR says is a density, and the order of its objects is
arbitrary: its network sees another draw each time, objects in another order. Accuracy is of 5,000
images of test digits; *seed* is that of the images and of both networks.
"""


def representation_section(measured: Sequence[Measured], images: Path) -> list[str]:
    """Accuracy over labelled images, all seeds, as Markdown; nothing where none was measured.

    Args:
        measured: the runs, with what `represent` measured on them.
        images: folder for the picture.
    """
    found = [
        (f"{run.name}, seed {run.seed}", figures)
        for run in measured
        for figures in run.beside("represent")
    ]
    if not found:
        return []
    sizes = sorted({size for _, figures in found for size in figures["sizes"]})
    rows = []
    for task in TITLES:
        for name, described in SEEN.items():
            for model, figures in found:
                values = dict(zip(figures["sizes"], figures["accuracy"][task][name], strict=True))
                cells = [number(values.get(size), ".3f") for size in sizes]
                rows.append([task, described, model, str(figures["seed"]), *cells])
    header = ("task", "learned from", "AIR", "seed", *(f"{size:,}" for size in sizes))
    file = save(_accuracies([figures for _, figures in found]), images / "2d-representation.png")
    caption = (
        "Accuracy over labelled images: the mean of the seeds, and from the lowest to the highest."
    )
    return [
        "## What the inferences are worth\n",
        INTRODUCTION,
        picture(file, caption, about="Representational power"),
        markdown(header, rows),
        commands([run for run in measured if run.beside("represent")], represent=True),
    ]


def _accuracies(found: list[dict[str, Any]]) -> Figure:
    with mpl.rc_context(STYLE):
        return _panels(found)


def _panels(found: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axis, (task, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        for name, described in SEEN.items():
            values: dict[int, list[float]] = {}
            for figures in found:
                pairs = zip(figures["sizes"], figures["accuracy"][task][name], strict=True)
                for size, value in pairs:
                    values.setdefault(size, []).append(value)
            sizes = sorted(values)
            (line,) = axis.plot(sizes, [statistics.mean(values[n]) for n in sizes], "o-")
            line.set_label(described)
            least, most = ([limit(values[n]) for n in sizes] for limit in (min, max))
            axis.fill_between(sizes, least, most, alpha=0.25, color=line.get_color(), linewidth=0)
        axis.set(xscale="log", xlabel="labelled images", ylabel="accuracy", title=title)
        axis.grid(visible=True)
        axis.legend()
    return figure

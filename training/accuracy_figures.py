"""Pictures of how far a model is off, how well it knows that, and where it goes wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from renderer.spec import SceneSpec
from training.figures import COLOURS, STYLE
from training.inferred import Inferred
from training.metrics import FOUND_WITHIN, match
from training.mistakes import Case
from training.novelty import KNOWN, Scores, roc_area
from training.reliability import (
    SAMPLES,
    found,
    identity_calibration,
    probabilities,
    rank_statistics,
)

MILLI, DEGREES = 1000.0, math.degrees(1)
PASSES = {"single pass": COLOURS[0], "refined": COLOURS[1]}
WORDS = 62  # letters a line, above a case
GROUPS = 8  # of objects, by what errors are shown against
BINS = 10  # of confidence
LEAST_SHOWN = 1e-4  # mm and degrees, on logarithmic axes

Passes = Mapping[str, Inferred]  # by a key of PASSES


def errors(spec: SceneSpec, passes: Passes) -> Figure:
    """Share of objects (azimuth: of pictures) with at most some error."""
    panels: dict[str, str] = {"position": "position, mm"}
    panels |= {f"yaw {name}": f"yaw of a {name}, °" for name in _turning(spec)}
    panels |= {"azimuth": "azimuth, °"} if spec.camera.moves else {}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * len(panels), 2.6), layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for name, inferred in passes.items():
            values = _errors(spec, inferred)
            for axes, (key, label) in zip(row, panels.items(), strict=True):
                x = np.sort(np.maximum(values[key], LEAST_SHOWN))
                axes.plot(
                    x, np.arange(1, len(x) + 1) / max(1, len(x)), color=PASSES[name], label=name
                )
                axes.set(xscale="log", xlabel=label, ylim=(0, 1.01))
                axes.grid(visible=True)
        row[0].set_ylabel("share with at most that error")
        row[0].legend(loc="lower right")
    return figure


def confusion(spec: SceneSpec, passes: Passes) -> Figure:
    """Inferred classes by true ones; what nothing within 5 cm was matched to is missed."""
    names = [*spec.class_names, "nothing"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(passes), 3.2), layout="constrained")
        row = figure.subplots(1, len(passes), squeeze=False)[0]
        for axes, (name, inferred) in zip(row, passes.items(), strict=True):
            table = confusion_table(spec, inferred).numpy()
            shares = table / np.maximum(table.sum(1, keepdims=True), 1)
            axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            for i, line in enumerate(table):
                for j, value in enumerate(line):
                    colour = "white" if shares[i, j] > 0.5 else "black"
                    axes.text(j, i, str(int(value)), ha="center", va="center", color=colour)
            axes.set_xticks(range(len(names)), names)
            axes.set_yticks(range(len(names)), names)
            axes.set(xlabel="inferred", ylabel="true", title=name)
    return figure


def confusion_table(spec: SceneSpec, inferred: Inferred) -> Tensor:
    """How often an object of each class, or nothing, was taken for which: `[C + 1, C + 1]`."""
    classes = len(spec.objects)
    table = torch.zeros(classes + 1, classes + 1, dtype=torch.int64)
    guess, true = inferred.estimate.scene, inferred.true
    pairs = match(guess, true)
    near = pairs.distance <= FOUND_WITHIN
    b, i, j = pairs.scene[near], pairs.inferred[near], pairs.true[near]
    missed, invented = true.presence.clone(), guess.presence.clone()
    missed[b, j], invented[b, i] = False, False
    for row, column in zip(
        true.identity[b, j].tolist(), guess.identity[b, i].tolist(), strict=True
    ):
        table[row, column] += 1
    for c in range(classes):
        table[c, classes] = (true.identity[missed] == c).sum()
        table[classes, c] = (guess.identity[invented] == c).sum()
    return table


def against(
    spec: SceneSpec,
    passes: Passes,
    what: Tensor,
    label: str,
    edges: Sequence[float] | None = None,
) -> Figure:
    """Median errors, and those of nine in ten, of groups of objects by `what` `[B, K]`.

    Args:
        spec: the world.
        passes: what was inferred.
        what: of true objects.
        label: of it.
        edges: between groups; eight groups of equally many objects without.
    """
    panels: dict[str, str] = {"position": "position, mm"}
    panels |= {f"yaw {name}": f"yaw of a {name}, °" for name in _turning(spec)}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.0 * len(panels), 3.0), layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for name, inferred in passes.items():
            values, places = _errors(spec, inferred), _of_objects(spec, inferred, what)
            for axes, (key, title) in zip(row, panels.items(), strict=True):
                x, y = places[key], values[key]
                cuts = np.quantile(x, np.linspace(0, 1, GROUPS + 1)) if edges is None else edges
                index = np.digitize(x, cuts[1:-1])
                groups = [b for b in range(len(cuts) - 1) if (index == b).any()]
                centres = groups if edges is not None else [x[index == b].mean() for b in groups]
                for share, style in ((0.5, "-"), (0.9, ":")):
                    heights = [np.quantile(y[index == b], share) for b in groups]
                    axes.plot(
                        centres,
                        np.maximum(heights, LEAST_SHOWN),
                        style,
                        marker=".",
                        color=PASSES[name],
                        label=f"{name}, {'median' if share == 0.5 else 'nine in ten'}",
                    )
                if edges is not None:
                    counts = [int((index == b).sum()) for b in groups]
                    names = [f"{edges[b]:g}–{edges[b + 1]:g}" for b in groups]
                    ticks = [f"{span}\n({n})" for span, n in zip(names, counts, strict=True)]
                    axes.set_xticks(groups, ticks, fontsize=7)
                axes.set(yscale="log", xlabel=label, title=title)
                axes.grid(visible=True)
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7)
    return figure


def reliability(spec: SceneSpec, passes: Passes) -> Figure:
    """How often the truth lies within intervals, against how often it should."""
    columns = ("position", "yaw", "azimuth")
    levels = np.linspace(0, 1, 101)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.0 * 4.6, 2.9), layout="constrained")
        row = figure.subplots(1, len(columns) + 2)
        for name, inferred in passes.items():
            given = probabilities(spec, inferred.estimate, inferred.true)
            for axes, key in zip(row, columns, strict=False):
                values = given[key].numpy()
                if len(values):
                    inside = [(values <= level).mean() for level in levels]
                    axes.plot(levels, inside, color=PASSES[name], label=name)
                axes.set(title=f"intervals of {key}", xlabel="claimed", xlim=(0, 1), ylim=(0, 1))
            counts = inferred.estimate.count_probabilities, inferred.true.count
            identities = identity_calibration(spec, inferred.estimate, inferred.true)
            for axes, key, pair in (
                (row[3], "count", counts),
                (row[4], "class", identities),
            ):
                _confidence(axes, name, *pair)
                axes.set(title=f"confidence in the {key}", xlabel="claimed", xlim=(0.3, 1.02))
        for axes in row:
            axes.plot([0, 1], [0, 1], color="#999999", lw=0.8, zorder=0)
            axes.grid(visible=True)
        row[0].set_ylabel("true")
        row[0].legend(loc="upper left")
    return figure


def ranks(spec: SceneSpec, passes: Passes, generator: torch.Generator) -> Figure:
    """Histograms of the ranks of the truth, with the band of 99 % of uniform ones."""
    from scipy.stats import binom

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 2.2 * len(passes)), layout="constrained")
        grid = figure.subplots(len(passes), 4, squeeze=False)
        for line, (name, inferred) in zip(grid, passes.items(), strict=True):
            tests = rank_statistics(spec, inferred.estimate, inferred.true, generator=generator)
            for axes, (key, test) in zip(line, tests.items(), strict=True):
                axes.set(yticks=[], xlim=(0, SAMPLES), title=f"{name}: {key}")
                if test is None:
                    continue
                counts = np.array(test["histogram"])
                bins, n = len(counts), int(test["n"])
                edges = np.linspace(0, SAMPLES, bins + 1)
                low, high = binom.ppf([0.005, 0.995], n, 1 / bins)
                axes.axhspan(low, high, color="#DDDDDD", lw=0, zorder=0)
                axes.stairs(counts, edges, fill=True, color=PASSES[name], alpha=0.75)
                axes.set_ylim(0, 1.15 * max(high, counts.max()))
                axes.set_xlabel(f"KS {test['ks']:.3f}, c2st {test['c2st']:.3f}", fontsize=8)
    return figure


def roc(scores: Mapping[str, Scores]) -> Figure:
    """ROC of each foreign kind, by novelty and by what stays unexplained."""
    known = scores[KNOWN]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 3.4), layout="constrained")
        row = figure.subplots(1, 2)
        for axes, name in zip(row, ("novelty", "unexplained"), strict=True):
            for colour, (kind, found) in zip(
                COLOURS, (item for item in scores.items() if item[0] != KNOWN), strict=False
            ):
                mine, theirs = getattr(known, name).numpy(), getattr(found, name).numpy()
                cuts = np.unique(np.concatenate([mine, theirs, [-np.inf]]))[::-1]
                false = [(mine > cut).mean() for cut in cuts]
                right = [(theirs > cut).mean() for cut in cuts]
                area = roc_area(getattr(known, name), getattr(found, name))
                axes.plot(false, right, color=colour, label=f"{kind} {area:.4f}")
            axes.set(xscale="symlog", xlim=(0, 1), ylim=(0, 1.01), title=f"by {name}")
            axes.set_xscale("symlog", linthresh=0.01)
            axes.set_xlabel("known pictures called novel")
            axes.legend(fontsize=7, loc="lower right", title="area under ROC", title_fontsize=7)
            axes.grid(visible=True)
        row[0].set_ylabel("foreign pictures called novel")
    return figure


def kinds(scores: Mapping[str, Scores]) -> Figure:
    """The first pictures of each kind, with their novelty."""
    with mpl.rc_context(STYLE):
        columns = len(next(iter(scores.values())).examples)
        figure = Figure(figsize=(1.25 * columns, 1.5 * len(scores)), layout="constrained")
        grid = figure.subplots(len(scores), columns, squeeze=False)
        for line, (kind, found) in zip(grid, scores.items(), strict=True):
            for axes, picture, value in zip(line, found.examples, found.novelty, strict=False):
                shown = f"{float(value):.0f}" if value >= 10 else f"{float(value):.2g}"
                axes.imshow(picture.numpy())
                axes.set(xticks=[], yticks=[])
                axes.set_title(shown, fontsize=7, pad=2)
            line[0].set_ylabel(kind, fontsize=7)
    return figure


def worst(cases: Sequence[Case]) -> Figure:
    """Pictures, what the single pass makes of them, and what refinement does, with the mistakes."""
    columns = 4
    rows = math.ceil(len(cases) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 1.75 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for number, (axes, case) in enumerate(zip(grid, cases, strict=False), 1):
            strip = torch.cat(list(case.pictures), dim=1)
            axes.imshow(strip.numpy())
            lines = [fill(line, WORDS) for line in case.says.splitlines()]
            axes.set_title(f"{number}. " + "\n".join(lines), fontsize=6.5, loc="left", pad=2)
    return figure


def _confidence(axes: Axes, name: str, given: Tensor, truth: Tensor) -> None:
    """A dot for each bin of confidence, as large as there are answers in it."""
    confidence, guess = given.max(dim=1)
    right = (guess == truth).float()
    index = (confidence * BINS).long().clamp(0, BINS - 1)
    for b in index.unique().tolist():
        inside = index == b
        size = 6 + 60 * float(inside.float().mean())
        place = float(confidence[inside].mean()), float(right[inside].mean())
        axes.scatter(*place, s=size, color=PASSES[name], alpha=0.7)


def _turning(spec: SceneSpec) -> list[str]:
    pairs = zip(spec.class_names, spec.symmetry_orders, strict=True)
    return [name for name, order in pairs if order != 0]


def _errors(spec: SceneSpec, inferred: Inferred) -> dict[str, Any]:
    """Errors by panel, mm and degrees."""
    objects = found(spec, inferred.estimate, inferred.true)
    values = {"position": MILLI * objects.offset.norm(dim=1).numpy()}
    for name in _turning(spec):
        mine = objects.identity == spec.class_names.index(name)
        values[f"yaw {name}"] = DEGREES * objects.turned[mine].abs().numpy()
    difference = inferred.estimate.scene.azimuth - inferred.true.azimuth
    values["azimuth"] = DEGREES * difference.abs().numpy()
    return values


def _of_objects(spec: SceneSpec, inferred: Inferred, what: Tensor) -> dict[str, Any]:
    """`what` `[B, K]` of true objects, in the order of `_errors`."""
    objects = found(spec, inferred.estimate, inferred.true)
    mine = what[objects.scene, objects.true_slot]
    values = {"position": mine.numpy()}
    for name in _turning(spec):
        of_class = objects.identity == spec.class_names.index(name)
        values[f"yaw {name}"] = mine[of_class].numpy()
    return values

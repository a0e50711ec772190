"""Measurements as plots: light, legible in print, and told apart by shape as well as by colour."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.stages import STAGES
from benchmarks.table import digits

# The colours of Okabe and Ito, which people of every colour vision tell apart. What draws on all
# cores has the colour of what draws on one.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6E6E6E"
SKY, YELLOW, PINK = "#56B4E9", "#E69F00", "#CC79A7"
LOOKS: dict[str, dict[str, Any]] = {
    "mujoco.Renderer": {"color": GREY, "marker": "x"},
    "opengl": {"color": BLUE, "marker": "o"},
    "raycast": {"color": ORANGE, "marker": "s"},
    "opengl, all cores": {"color": BLUE, "marker": "^", "linestyle": "--"},
    "raycast, all cores": {"color": ORANGE, "marker": "v", "linestyle": "--"},
    "raycast, card": {"color": GREEN, "marker": "D"},
}
SCHEMES = {"forward": BLUE, "central": ORANGE, "random": GREEN}
STAGE_COLOURS = dict(zip(STAGES, (GREY, SKY, BLUE, YELLOW, ORANGE, PINK), strict=True))

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "lines.markersize": 4.5,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "svg.hashsalt": "airscene",  # the same file from the same figures
}


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draws a plot of each part that was measured and has one; returns the files."""
    kinds = {"forward": forward, "gradient": gradient, "growth": growth, "profile": profile}
    files = []
    with mpl.rc_context(STYLE):
        for name, kind in kinds.items():
            if result["parts"].get(name, {"rows": []})["rows"]:
                files.append(save(kind(result["parts"][name]), folder / f"rendering-{name}.svg"))
    return files


def save(figure: Figure, file: Path) -> Path:
    """Writes a figure as SVG that depends on nothing but the figure."""
    figure.savefig(file, metadata={"Date": None}, facecolor="white")
    return file


def forward(part: dict[str, Any]) -> Figure:
    """Images per second over the size of the pictures, a panel for each number of samples."""
    rows = part["rows"]
    samples = sorted({row["supersample"] for row in rows})
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    for axes, supersample in zip(_panels(figure, len(samples)), samples, strict=True):
        mine = [row for row in rows if row["supersample"] == supersample]
        _by_contender(axes, mine, "size", lambda row: row["images_per_second"])
        axes.set_title(f"{supersample}×{supersample} samples a pixel")
        axes.set_xlabel("height and width, px")
        _logarithmic(axes, {row["size"] for row in rows})
    figure.axes[0].set_ylabel("images per second")
    _legend(figure)
    return figure


def growth(part: dict[str, Any]) -> Figure:
    """Images per second, and the gradient's price, over the batch."""
    rows = part["rows"]
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    _by_contender(left, rows, "scenes", lambda row: row["images_per_second"])
    _by_contender(right, rows, "scenes", lambda row: {"median": row["price"]})
    for axes in (left, right):
        axes.set_xlabel("scenes in a batch")
        _logarithmic(axes, {row["scenes"] for row in rows})
    left.set_ylabel("images per second")
    right.set_ylabel("picture and gradient, in renders")
    _plain(right.yaxis, (1, 2, 5, 10, 20))
    _legend(figure)
    return figure


def gradient(part: dict[str, Any]) -> Figure:
    """The gradient's price over the number of objects, on one core: by backend and camera."""
    alone = [row for row in part["rows"] if row["contender"] in ("opengl", "raycast")]
    names = list(dict.fromkeys(row["contender"] for row in alone))
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    grid = figure.subplots(2, len(names), sharex=True, sharey=True, squeeze=False)
    for azimuth, line in zip((False, True), grid, strict=True):
        for name, axes in zip(names, line, strict=True):
            mine = [row for row in alone if (row["contender"], row["azimuth"]) == (name, azimuth)]
            _prices(axes, mine)
            axes.set_title(f"{name}, {'with' if azimuth else 'without'} the camera")
            axes.set_yscale("log")
            _plain(axes.yaxis, (2, 5, 10, 20, 50))
            axes.set_xticks(sorted({row["objects"] for row in alone}))
    for axes in grid[1]:
        axes.set_xlabel("objects (hollow: 0.6 times the size)")
    for axes in grid[:, 0]:
        axes.set_ylabel("in renders")
    _legend(figure)
    return figure


def _prices(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for scheme, colour in SCHEMES.items():
        for way, style, said in (("windows", "-", "windows"), ("pictures", ":", "whole pictures")):
            for scale, fill in ((1.0, colour), (None, "white")):
                mine = [
                    row
                    for row in rows
                    if (row["scheme"], row["way"]) == (scheme, way)
                    and (row["scale"] == 1.0) == (scale == 1.0)
                ]
                if mine:
                    axes.plot(
                        [row["objects"] for row in mine],
                        [row["price"] for row in mine],
                        color=colour,
                        linestyle=style,
                        marker="o" if way == "windows" else "s",
                        markerfacecolor=fill,
                        label=f"{scheme}, {said}",
                    )


def profile(part: dict[str, Any]) -> Figure:
    """The parts of a picture's time as shares, a bar for each backend, samples and batch."""
    rows = [row for row in part["rows"] if row["what"] == "picture"]
    rows.sort(key=lambda row: (row["contender"], row["supersample"], row["scenes"]))
    figure = Figure(figsize=(7.2, 0.9 + 0.3 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots()
    names = [
        f"{row['contender']}, {row['supersample']}×{row['supersample']}, batch {row['scenes']}\n"
        f"{digits(1e3 * row['seconds'] / row['scenes'])} ms a scene"
        for row in rows
    ]
    start = [0.0] * len(rows)
    for stage, text in STAGES.items():
        # What noise made negative has no length.
        share = [max(0.0, 100 * row["parts"][stage] / row["seconds"]) for row in rows]
        axes.barh(names, share, left=start, color=STAGE_COLOURS[stage], label=text, height=0.7)
        start = [before + more for before, more in zip(start, share, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("% of a picture's time")
    axes.grid(axis="y", visible=False)
    axes.tick_params(labelsize=7)
    _legend(figure, columns=2)
    return figure


def _panels(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(1, count, sharey=True, squeeze=False)[0])


def _by_contender(axes: Axes, rows: list[dict[str, Any]], x: str, value: Any) -> None:
    """A line for each contender; a bar from the slowest to the fastest round where it is known."""
    for name, look in LOOKS.items():
        mine = [row for row in rows if row["contender"] == name]
        if not mine:
            continue
        places, values = [row[x] for row in mine], [value(row) for row in mine]
        axes.plot(places, [one["median"] for one in values], label=name, **look)
        if "min" in values[0]:
            least, most = ([one[end] for one in values] for end in ("min", "max"))
            axes.vlines(places, least, most, color=look["color"], linewidth=2.5, alpha=0.3)


def _logarithmic(axes: Axes, places: Iterable[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    _plain(axes.xaxis, sorted(places))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _plain(axis: Any, places: Iterable[int]) -> None:
    """Ticks at these places, in plain numbers."""
    axis.set_ticks(list(places), [str(place) for place in places])
    axis.set_minor_locator(NullLocator())


def _legend(figure: Figure, columns: int = 3) -> None:
    """One for all panels, below them."""
    found: dict[Any, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns)

"""The page of 2D results: every run, with tables, pictures and commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from training import figures2d
from training.figures import save as save_figure
from training.figures_representation import representation_section
from training.figures_rivals import rivals_section
from training.figures_strokes import strokes_section
from training.measured import load_measured
from training.page import IMAGES, picture, read_json
from training.panels import save_panel
from training.results2d import Finished, by_method, load_finished, spread, table

PAGE, DATA, COMPARISONS = "results-2d.md", "results-2d.json", "results-2d-compared.json"
POLICIES = 3  # seeds whose heatmaps are drawn

INTRODUCTION = """\
# Attend, Infer, Repeat in 2D

What the 2D model (figure 3 of the paper) learned from images alone: what the objects look like, how
many there are and where. Made by `python -m training figures`; every seed is shown. Measured on
images of test digits that no training set shows. The bound is of one draw an image, in nats, under
the geometric prior with ratio 0.01 that favours few objects. Seconds are of the clock on the wall,
and the machine did other things besides: its processor's seconds say more. Tables tell of every run
that was ever put on this page, pictures of those that are at hand.
"""

ABOUT = {
    "multi-mnist": "Zero, one or two digits that do not overlap (section 3.1; figures 4 to 6), and "
    "the same model on three, which it never saw (figure 7).",
    "multi-mnist-dair": "The same images, read by DAIR: each step sees what is not explained yet "
    "(appendix D; figure 7).",
    "multi-mnist-013": "Zero, one or three digits, tested on two (figure 7, interpolation).",
    "multi-mnist-013-dair": "The same by DAIR.",
    "multi-mnist-pyro": "Smaller digits of varying size that may overlap, as in Pyro's example, on "
    "which most published figures are.",
    "sprites": "Red circles, green squares and blue diamonds that add up where they overlap "
    "(appendix G; figures 14 to 17).",
}


def write_report2d(folder: Path, out: Path) -> Path | None:
    """Writes the page, its pictures, and its numbers as JSON; returns the page.

    Args:
        folder: of the runs, anywhere below it.
        out: where the page goes; made when missing. What a page there tells of runs whose folders
            are gone stays on it.

    Returns:
        The page, or None when there is no run of a 2D model.

    Raises:
        CheckpointError: a run cannot be read.
        DataError: MNIST is not there.
    """
    data = out / DATA
    runs = load_finished(folder, read_json(data) or [])
    compared = load_measured(folder, read_json(out / COMPARISONS) or [])
    if not any(run.checkpoint for run in runs) and not any(run.folder for run in compared):
        return None
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    text = [INTRODUCTION, "## Every run\n", table(runs)]
    for method, group in by_method(runs).items():
        text += [f"## `{method}`\n", *_section(method, group, out)]
    for section in (strokes_section, representation_section, rivals_section):
        text += section(compared, out / IMAGES)
    for file, known in ((data, runs), (out / COMPARISONS, compared)):
        rows = [run.row for run in known]
        file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    page = out / PAGE
    page.write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    return page


def _section(method: str, runs: Sequence[Finished], out: Path) -> list[str]:
    stem = "2d-" + method.replace(", ", "-")
    text = [f"{line}\n" for line in (ABOUT.get(method, ""), spread(runs)) if line]
    curves = save_figure(figures2d.curves(runs), out / IMAGES / f"{stem}-learning.png")
    caption = "Held-out images over training, a line for each seed."
    text.append(picture(curves, caption, about=method))
    for name, caption, drawn in _pictures(runs):
        file = out / IMAGES / f"{stem}-{name}.png"
        if drawn is not None:
            save_panel(drawn, file)
        if file.is_file():  # or it was drawn when the run was still at hand
            text.append(picture(file, caption, about=method))
    return [*text, _commands(runs)]


def _pictures(runs: Sequence[Finished]) -> list[tuple[str, str, Tensor | None]]:
    """Name, caption and what is drawn now, if its run is at hand."""
    models = [run.checkpoint for run in runs if run.checkpoint is not None]
    seen = {tuple(map(int, counts)) for run in runs for counts in run.row["on_other_counts"]}
    shown: list[tuple[str, str, Tensor | None]] = []
    for counts in (tuple(runs[0].row["counts"]), *sorted(seen)):
        label = "".join(map(str, counts))
        caption = (
            f"Images of {' or '.join(map(str, counts))} objects above reconstructions, a pair of "
            "rows for each seed."
        )
        drawn = figures2d.reconstructions(models, counts) if models else None
        shown.append((f"on-{label}", caption, drawn))
    first = models[:1]
    return [
        *shown,
        (
            "policies",
            "Where the windows go: first step red, second green, third blue, a picture a seed.",
            figures2d.policies(models[:POLICIES]) if models else None,
        ),
        (
            "stages",
            "Reconstructions as training went on.",
            figures2d.stages(first[0]) if first else None,
        ),
        ("samples", "What the model makes up.", figures2d.samples(first[0]) if first else None),
    ]


def _commands(runs: Sequence[Finished]) -> str:
    """How to make these numbers again."""
    row = runs[0].row
    estimator = "" if row["estimator"] == "enumerate" else f" --estimator {row['estimator']}"
    lines = [
        f"python -m training train {row['experiment']}{estimator} --steps {row['of_steps']} "
        f"--seed {row['seed']} --out DIR",
        f"python -m training evaluate DIR --scenes {row['images'] or 10_000} "
        f"--seed {row['evaluation_seed'] or 0} --json DIR/evaluation.json",
    ]
    for counts in row["on_other_counts"]:
        lines.append(
            f"{lines[1].split(' --json')[0]} --counts {' '.join(counts)} "
            f"--json DIR/evaluation-{counts}.json"
        )
    machines = sorted({f"{run.row['machine']}; {run.row['device']}" for run in runs})
    block = "\n".join(lines)
    return f"Machine: {', '.join(machines)}. Commands:\n\n```\n{block}\n```\n"

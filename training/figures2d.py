"""The counterparts of the paper's 2D figures, and the table of all runs, failures included.

From a folder of runs, each an output folder of `python -m training train`, with what `evaluate`
wrote beside it: evaluation.json, and evaluation-N.json of images with exactly N objects.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from inference.checkpoint2d import Checkpoint2d, load_checkpoint2d
from inference.glimpse import corners
from training.digits import CANVAS
from training.panels import windows_panel
from training.picture_evaluation import FRESH
from training.picture_experiments import PictureExperiment
from training.picture_run import PANELS
from training.pictures import load_pictures

SHOWN = 12  # images in a row
POLICIES = 3  # seeds whose heatmaps are drawn
POLICY_IMAGES = 2_000
STAGES = 5  # of training, in a column
REACHED = (0.975, 0.98)  # count accuracies whose time is noted


@dataclass(frozen=True)
class Finished:
    """A run and what was measured on it."""

    checkpoint: Checkpoint2d
    experiment: PictureExperiment
    evaluations: dict[str, dict[str, Any]]  # by file name without its suffix

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.checkpoint.config.training["seed"])

    def row(self) -> dict[str, Any]:
        """The run's line in the table, as plain data."""
        training = self.checkpoint.config.training
        history = training["history"]
        measured = self.evaluations.get("evaluation", {})
        row: dict[str, Any] = {
            "experiment": self.experiment.name,
            "estimator": self.experiment.estimator,
            "seed": self.seed,
            "steps": training["steps"],
            "of_steps": training["of_steps"],
            "seconds": training["seconds"],
            "cpu_seconds": training["cpu_seconds"],
            "threads": training["threads"],
            "count_accuracy": measured.get("count_accuracy"),
            "elbo": measured.get("elbo"),
            "images": measured.get("images"),
            "evaluation_seed": measured.get("seed"),
        }
        for level in REACHED:
            first = next((h for h in history if h["count_accuracy"] >= level), None)
            row[f"reached_{level}"] = first and {
                key: first[key] for key in ("step", "seconds", "cpu_seconds")
            }
        for name, evaluation in self.evaluations.items():
            if name != "evaluation":
                counts = "".join(map(str, evaluation["counts"]))
                row[f"count_accuracy_on_{counts}"] = evaluation["count_accuracy"]
        return row


def write(directory: Path, out: Path) -> None:
    """Writes results-2d.md, results-2d.json and the pictures that the page shows.

    Args:
        directory: of the runs, one folder each.
        out: where to; pictures go to `images/` in it.

    Raises:
        ValueError: there is no run in the directory.
        DataError: MNIST is not there.
    """
    runs = [_read(path) for path in sorted(directory.iterdir()) if (path / "config.json").is_file()]
    if not runs:
        raise ValueError(f"{directory}: holds no run of a 2D model; train one to there first")
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    by_name: dict[str, list[Finished]] = {}
    for run in sorted(runs, key=lambda run: (run.experiment.name, run.seed)):
        by_name.setdefault(run.experiment.name, []).append(run)
    page = ["# Results in 2D", "", INTRODUCTION, "", "## Every run", "", *_table(runs_of(by_name))]
    for name, group in by_name.items():
        page += ["", f"## {name}", "", *_section(name, group, images)]
    (out / "results-2d.md").write_text("\n".join(page) + "\n", encoding="utf-8")
    rows = [run.row() for run in runs_of(by_name)]
    (out / "results-2d.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


INTRODUCTION = """\
What the 2D model (figure 3 of the paper) learned from images alone: what the objects look like, how
many there are and where. Measured on images of test digits that no training set shows, by
`python -m training evaluate RUN`; written by `training.figures2d`. The bound is of one draw an
image, in nats, under the geometric prior with ratio 0.01 that favours few objects. Times are of the
machine that `threads` and the seconds of its processors describe: where other programs ran beside,
processor seconds are the smaller and say more."""


def runs_of(by_name: dict[str, list[Finished]]) -> list[Finished]:
    """All runs, by experiment and seed."""
    return [run for group in by_name.values() for run in group]


def _read(folder: Path) -> Finished:
    checkpoint = load_checkpoint2d(folder)
    evaluations = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("evaluation*.json"))
    }
    experiment = PictureExperiment.model_validate(checkpoint.config.training["experiment"])
    return Finished(checkpoint, experiment, evaluations)


def _table(runs: Sequence[Finished]) -> list[str]:
    lines = [
        "| experiment | seed | steps | count accuracy | bound, nats "
        "| to 0.975: steps, processor s | on other counts |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        row = run.row()
        reached = row["reached_0.975"]
        others = [
            f"{key.removeprefix('count_accuracy_on_')} objects: {value:.4f}"
            for key, value in row.items()
            if key.startswith("count_accuracy_on_")
        ]
        cells = (
            row["experiment"],
            row["seed"],
            f"{row['steps']} of {row['of_steps']}",
            _number(row["count_accuracy"], ".4f"),
            _number(row["elbo"], ".1f"),
            f"{reached['step']}, {reached['cpu_seconds']:.0f}" if reached else "never",
            "; ".join(others),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _section(name: str, group: list[Finished], images: Path) -> list[str]:
    accuracies = [
        run.evaluations["evaluation"]["count_accuracy"]
        for run in group
        if "evaluation" in run.evaluations
    ]
    lines = []
    if accuracies:
        reached = sum(accuracy >= REACHED[1] for accuracy in accuracies)
        lines = [
            f"Median count accuracy of {len(accuracies)} seeds "
            f"{statistics.median(accuracies):.4f}, from {min(accuracies):.4f} to "
            f"{max(accuracies):.4f}; {reached} of them reach {REACHED[1]}.",
            "",
        ]
    first = group[0]
    _curves(group, images / f"2d-{name}-learning.svg")
    lines += [f"![Count accuracy and bound over training](images/2d-{name}-learning.svg)", ""]
    for counts in (first.experiment.data.counts, (2,), (3,)):
        if counts == first.experiment.data.counts or _tested_on(group, counts):
            label = "".join(map(str, counts))
            file = f"2d-{name}-on-{label}.png"
            _save(torch.cat([_reconstructions(run, counts) for run in group], 1), images / file)
            shows = f"Images of {label} objects above reconstructions, a pair of rows for each seed"
            lines += [f"![{shows}](images/{file})", ""]
    _policies(group[:POLICIES], images / f"2d-{name}-policies.png")
    lines += [
        "![Where the windows go: first step red, second green, third blue, a picture for each of "
        f"{len(group[:POLICIES])} seeds](images/2d-{name}-policies.png)",
        "",
    ]
    stages = _stages(first.checkpoint.folder / PANELS)
    if stages is not None:
        _save(stages, images / f"2d-{name}-stages.png")
        lines += [f"![Reconstructions as training went on](images/2d-{name}-stages.png)", ""]
    generator = torch.Generator().manual_seed(0)
    # As many objects as the images show: the prior, which favours few, would leave most empty.
    some = [n for n in first.experiment.data.counts if n]
    shown = torch.tensor((some * SHOWN)[:SHOWN])
    made_up = first.checkpoint.model.imagine(shown, generator=generator)
    row = torch.cat([image.expand(3, -1, -1) for image in made_up], 2)
    _save(row, images / f"2d-{name}-samples.png")
    lines += [f"![What the model makes up](images/2d-{name}-samples.png)"]
    return lines


def _tested_on(group: list[Finished], counts: tuple[int, ...]) -> bool:
    return any(
        tuple(evaluation["counts"]) == counts
        for run in group
        for evaluation in run.evaluations.values()
    )


def _images(run: Finished, counts: tuple[int, ...], n: int) -> Tensor:
    data = run.experiment.data.model_copy(update={"counts": counts, "images": n, "seed": FRESH})
    return load_pictures(data, "test").batch(torch.arange(n))


def _reconstructions(run: Finished, counts: tuple[int, ...]) -> Tensor:
    image = _images(run, counts, SHOWN)
    return windows_panel(image, run.checkpoint.model.infer(image))


def _policies(group: list[Finished], path: Path) -> None:
    """Heatmaps of the centres of the windows that are used, steps by colour (figure 5, right)."""
    maps = []
    for run in group:
        heat = np.zeros((CANVAS, CANVAS, 3))
        image = _images(run, run.experiment.data.counts, POLICY_IMAGES)
        for part in image.split(250):
            estimate = run.checkpoint.model.infer(part)
            left, top, width, height = corners(estimate.where.mean, CANVAS).unbind(-1)
            column, row = (left + width / 2).long(), (top + height / 2).long()
            inside = (column >= 0) & (column < CANVAS) & (row >= 0) & (row < CANVAS)
            for step in range(min(3, run.checkpoint.model.config.steps)):
                used = (estimate.count > step) & inside[:, step]
                places = (place[used, step].numpy() for place in (row, column))
                np.add.at(heat[..., step], tuple(places), 1.0)
        maps.append(torch.from_numpy(heat / heat.max((0, 1)).clip(1)).permute(2, 0, 1))
    _save(torch.cat([one.repeat_interleave(4, 1).repeat_interleave(4, 2) for one in maps], 2), path)


def _stages(panels: Path) -> Tensor | None:
    """Some of the panels that a run left, from its beginning to its end (figure 6)."""
    paths = sorted(panels.glob("*.png"))
    if not paths:
        return None
    chosen = np.unique(np.geomspace(1, len(paths), STAGES).round().astype(int)) - 1
    pictures = [
        torch.from_numpy(np.array(Image.open(paths[i]))).permute(2, 0, 1) / 255 for i in chosen
    ]
    half = pictures[0].shape[1] // 2
    return torch.cat([pictures[0][:, :half], *(picture[:, half:] for picture in pictures)], 1)


def _curves(group: list[Finished], path: Path) -> None:
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    for run in group:
        history = run.checkpoint.config.training["history"]
        steps = [row["step"] for row in history]
        for axis, key in zip(axes, ("count_accuracy", "bound"), strict=True):
            axis.plot(steps, [row[key] for row in history], label=f"seed {run.seed}")
    for axis, label in zip(axes, ("count accuracy, held out", "bound, nats"), strict=True):
        axis.set(xlabel="steps", ylabel=label)
        axis.grid(alpha=0.3)
    axes[1].legend()
    figure.savefig(path)


def _save(picture: Tensor, path: Path) -> None:
    pixels = picture.clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path, optimize=True)


def _number(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)

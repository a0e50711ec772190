"""What 2D models were measured to do: runs gathered, as rows of a table, failures included.

What was published once stays: a run whose folder is gone is read from the rows of the page itself,
where a newer one of the same experiment, estimator and seed has not taken its place.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.checkpoint import CONFIG, EVALUATION
from inference.checkpoint2d import Checkpoint2d, load_checkpoint2d
from training.page import markdown, number
from training.picture_experiments import PictureExperiment

REACHED = (0.975, 0.98)  # count accuracies whose time is noted


@dataclass(frozen=True)
class Finished:
    """A run and what was measured on it."""

    row: dict[str, Any]  # plain data
    checkpoint: Checkpoint2d | None  # None when only its numbers are at hand

    @property
    def experiment(self) -> str:
        """Its name."""
        return str(self.row["experiment"])

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.row["seed"])

    @property
    def method(self) -> str:
        """The experiment, and the estimator where it is not the usual one."""
        estimator = self.row["estimator"]
        return self.experiment + ("" if estimator == "enumerate" else f", {estimator}")

    @property
    def kind(self) -> tuple[str, int]:
        """What two runs share of which the later one replaces the earlier."""
        return self.method, self.seed

    def reached(self, level: float) -> dict[str, Any] | None:
        """When held-out images were first counted so well: step, seconds and processor seconds."""
        return next((h for h in self.row["history"] if h["count_accuracy"] >= level), None)


def load_finished(folder: Path, published: Sequence[dict[str, Any]] = ()) -> list[Finished]:
    """The runs of 2D models below a folder, by experiment and seed; measured or not.

    Args:
        folder: with output folders of `python -m training train` anywhere below it; what `evaluate`
            wrote lies beside each: evaluation.json, evaluation-N.json of images with N objects.
        published: rows of an earlier page.
    """
    found = []
    for config in sorted(folder.rglob(CONFIG)):
        training = json.loads(config.read_text(encoding="utf-8")).get("training", {})
        if _counts(training.get("experiment", {})):
            found.append(_read(config.parent))
    new = {run.kind for run in found}
    earlier = [Finished(row, None) for row in published]
    found += [run for run in earlier if run.kind not in new]
    return sorted(found, key=lambda run: (run.method, run.seed))


def _counts(experiment: dict[str, Any]) -> bool:
    """Whether an experiment is one of AIR on images of which one knows how many objects they show.

    Characters and rivals have sections of their own: see `measured`.
    """
    form = experiment.get("data", {}).get("form")
    return form not in (None, "omniglot") and experiment["network"]["kind"] == "glimpses"


def _read(folder: Path) -> Finished:
    checkpoint = load_checkpoint2d(folder)
    training = checkpoint.config.training
    experiment = PictureExperiment.model_validate(training["experiment"])
    row = {
        "experiment": experiment.name,
        "estimator": experiment.estimator,
        "seed": training["seed"],
        "counts": list(experiment.data.counts),
        **{key: training[key] for key in ("steps", "of_steps", "seconds", "cpu_seconds")},
        **{key: training[key] for key in ("threads", "machine", "device", "precision")},
        "count_accuracy": None,
        "elbo": None,
        "images": None,
        "evaluation_seed": None,
        "on_other_counts": {},
        "history": training["history"],
    }
    measured = folder / EVALUATION
    if measured.is_file():
        figures = json.loads(measured.read_text(encoding="utf-8"))
        row |= {key: figures[key] for key in ("count_accuracy", "elbo", "images")}
        row["evaluation_seed"] = figures["seed"]
    for path in sorted(folder.glob("evaluation-*.json")):
        figures = json.loads(path.read_text(encoding="utf-8"))
        counts = "".join(map(str, figures["counts"]))
        row["on_other_counts"][counts] = {key: figures[key] for key in ("count_accuracy", "elbo")}
    return Finished(row, checkpoint)


def by_method(runs: Iterable[Finished]) -> dict[str, list[Finished]]:
    """Runs of the same experiment and estimator."""
    found: dict[str, list[Finished]] = {}
    for run in runs:
        found.setdefault(run.method, []).append(run)
    return found


def table(runs: Sequence[Finished]) -> str:
    """A line a run."""
    header = (
        "experiment", "seed", "steps", "count accuracy", "bound, nats",
        f"to {REACHED[0]}: steps", "s", "processor s", "in all", "on other counts",
    )  # fmt: skip
    lines = []
    for run in runs:
        row, reached = run.row, run.reached(REACHED[0])
        others = [
            f"{counts} objects: {figures['count_accuracy']:.4f}, {figures['elbo']:.1f} nats"
            for counts, figures in row["on_other_counts"].items()
        ]
        lines.append(
            (
                run.method,
                str(run.seed),
                f"{row['steps']} of {row['of_steps']}",
                number(row["count_accuracy"], ".4f"),
                number(row["elbo"], ".1f"),
                *(
                    (str(reached["step"]), f"{reached['seconds']:.0f}", _whole(reached))
                    if reached
                    else ("never", "–", "–")
                ),
                _whole(row),
                "; ".join(others),
            )
        )
    return markdown(header, lines)


def _whole(entry: dict[str, Any]) -> str:
    return f"{entry['cpu_seconds']:.0f}"


def spread(runs: Sequence[Finished]) -> str:
    """How well the seeds of a method do, in a sentence; empty when none is measured."""
    measured = [run.row for run in runs if run.row["count_accuracy"] is not None]
    if not measured:
        return ""
    accuracies = [row["count_accuracy"] for row in measured]
    reached = sum(accuracy >= REACHED[1] for accuracy in accuracies)
    bound = statistics.median(row["elbo"] for row in measured)
    return (
        f"Count accuracy, {len(accuracies)} run(s): median {statistics.median(accuracies):.4f}, "
        f"from {min(accuracies):.4f} to {max(accuracies):.4f}; {reached} reach {REACHED[1]}. "
        f"Bound: median {bound:.1f} nats."
    )

"""What trained models were measured to do: evaluation files gathered, told apart, as tables."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.checkpoint import CONFIG, EVALUATION
from inference.plain import PlainConfig
from training.experiments import Experiment

COLLAPSED = 0.1  # of recall: a model below finds nothing
SHARES = ("count_accuracy", "identity_accuracy", "recall")

# By objective, estimator or kind of network: what a method is called, in the order of tables.
METHODS = {
    "enumerate": "AIR, collapsed bound",
    "nvil": "AIR, NVIL",
    "rloo": "AIR, RLOO",
    "vimco": "AIR, VIMCO",
    "sleep": "sleep phase",
    "wake-sleep": "wake-sleep",
    "photos": "wake-sleep on photos",
    "any": "supervised, order summed out",
    "given": "supervised, labels as they come",
    "descent": "direct descent",
}


@dataclass(frozen=True)
class Result:
    """One trained model and what it was measured to do."""

    folder: Path
    experiment: str
    method: str  # a key of METHODS
    seed: int
    training: dict[str, Any]  # of the checkpoint's configuration
    evaluations: dict[str, dict[str, Any]]  # by the world: "" is the model's own

    @property
    def figures(self) -> dict[str, Any]:
        """Of scenes of its own world."""
        return self.evaluations[""]

    @property
    def collapsed(self) -> bool:
        """Whether it finds nothing."""
        return float(self.figures["recall"] or 0.0) < COLLAPSED


def load_results(folder: Path) -> list[Result]:
    """Every checkpoint below a folder that has an evaluation, in the order of tables.

    Beside `evaluation.json`, files `evaluation-*.json` hold what was measured in other worlds.

    Raises:
        ValueError: there is none.
    """
    found = []
    for file in sorted(folder.rglob(EVALUATION)):
        config = file.with_name(CONFIG)
        if not config.is_file():
            continue
        training = json.loads(config.read_text(encoding="utf-8"))["training"]
        if "network" not in training.get("experiment", {}):
            continue  # of another kind
        evaluations = {"": json.loads(file.read_text(encoding="utf-8"))}
        for other in sorted(file.parent.glob("evaluation-*.json")):
            figures = json.loads(other.read_text(encoding="utf-8"))
            evaluations[other.stem.removeprefix("evaluation-")] = figures
        experiment = training["experiment"]
        found.append(
            Result(
                file.parent,
                Path(experiment["spec"]).stem,
                method_of(training),
                int(training["seed"]),
                training,
                evaluations,
            )
        )
    if not found:
        raise ValueError(
            f"{folder}: holds no evaluated checkpoint; after training, write one by "
            f"`python -m training evaluate CHECKPOINT --json CHECKPOINT/{EVALUATION}`"
        )
    order = list(METHODS)
    return sorted(found, key=lambda r: (r.experiment, order.index(r.method), r.seed, r.folder))


def method_of(training: dict[str, Any]) -> str:
    """How a model was trained: a key of METHODS."""
    experiment = Experiment.model_validate(training["experiment"])
    if "photos" in training:
        return "photos"
    if experiment.objective == "elbo":
        return experiment.wake.estimator
    if isinstance(experiment.network, PlainConfig):
        return experiment.network.order
    return experiment.objective


def experiments_of(results: Iterable[Result]) -> dict[str, list[Result]]:
    """By experiment."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.experiment, []).append(result)
    return found


HEADER = (
    "method", "seed", "count", "identity", "recall", "position", "yaw", "azimuth",
    "reconstruction", "images seen", "minutes",
)  # fmt: skip


def row(result: Result) -> list[str]:
    """One line of an experiment's table."""
    figures, training = result.figures, result.training
    name = METHODS[result.method] + (" (collapsed)" if result.collapsed else "")
    return [
        name,
        str(result.seed),
        *(number(figures[key], ".3f") for key in SHARES),
        number(figures["position_error_m"]["median"], ".1f", 1e3, " mm"),
        ", ".join(
            f"{name} {number(entry['yaw_error_rad']['median'], '.1f', math.degrees(1))}°"
            for name, entry in figures["classes"].items()
            if entry["yaw_error_rad"]["median"] is not None
        ),
        number(figures["azimuth_error_rad"]["median"] or None, ".2f", math.degrees(1), "°"),
        number(figures["reconstruction_mse"], ".5f"),
        f"{training['images'] / 1e3:.0f}k",
        f"{training['seconds'] / 60:.1f}",
    ]


def summary(results: Sequence[Result]) -> list[list[str]]:
    """A line for each method of an experiment: medians over its seeds, and how many collapsed."""
    lines = []
    for method in METHODS:
        mine = [result for result in results if result.method == method]
        if not mine:
            continue
        cells = [METHODS[method], str(len(mine)), str(sum(result.collapsed for result in mine))]
        for key in SHARES:
            cells.append(number(_median(result.figures[key] for result in mine), ".3f"))
        position = _median(result.figures["position_error_m"]["median"] for result in mine)
        yaw = _median(result.figures["yaw_error_rad"]["median"] for result in mine)
        cells.append(number(position, ".1f", 1e3, " mm"))
        cells.append(number(yaw, ".1f", math.degrees(1), "°"))
        cells.append(number(_median(r.figures["reconstruction_mse"] for r in mine), ".5f"))
        cells.append(number(_median(r.training["seconds"] for r in mine), ".1f", 1 / 60))
        lines.append(cells)
    return lines


SUMMARY_HEADER = (
    "method", "seeds", "collapsed", "count", "identity", "recall", "position", "yaw",
    "reconstruction", "minutes",
)  # fmt: skip


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def number(value: float | None, form: str, factor: float = 1.0, unit: str = "") -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None else format(factor * value, form) + unit

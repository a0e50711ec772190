"""What trained models were measured to do: evaluation files gathered, told apart, as tables.

What was published once stays on the page: a model whose folder is gone is read from the numbers of
the page itself, where a newer one of the same kind has not taken its place.
"""

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
from inference.slots import SlotsConfig
from training.experiments import Experiment
from training.page import number

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
    "slots": "supervised, labels in any slot",
    "descent": "direct descent",
}


@dataclass(frozen=True)
class Result:
    """One trained model and what it was measured to do."""

    experiment: str
    method: str  # a key of METHODS
    seed: int
    photos: str | None  # the folder it learned from, where it did
    command: str  # that trained it, but for seed and output
    training: dict[str, Any]  # how long, on what, and held-out figures on the way
    evaluations: dict[str, dict[str, Any]]  # by the world: "" is the model's own
    folder: Path | None  # None when only its numbers are at hand

    @property
    def figures(self) -> dict[str, Any]:
        """Of scenes of its own world."""
        return self.evaluations[""]

    @property
    def collapsed(self) -> bool:
        """Whether it finds nothing."""
        return float(self.figures["recall"] or 0.0) < COLLAPSED

    @property
    def name(self) -> str:
        """What the method is called, and from which photos it learned."""
        name = METHODS[self.method]
        return name if self.photos is None else f"{name} ({self.photos})"

    @property
    def kind(self) -> tuple[str, str, int, str | None]:
        """What two runs share of which the later one replaces the earlier."""
        return self.experiment, self.method, self.seed, self.photos

    def numbers(self) -> dict[str, Any]:
        """All but its experiment and folder, as plain data."""
        return {
            "method": self.method,
            "seed": self.seed,
            "photos": self.photos,
            "collapsed": self.collapsed,
            "command": self.command,
            "training": self.training,
            "evaluations": self.evaluations,
        }

    @staticmethod
    def of_numbers(experiment: str, numbers: dict[str, Any]) -> Result:
        """One that was published."""
        return Result(
            experiment=experiment,
            method=numbers["method"],
            seed=numbers["seed"],
            photos=numbers["photos"],
            command=numbers["command"],
            training=numbers["training"],
            evaluations=numbers["evaluations"],
            folder=None,
        )


KEPT = ("seconds", "steps", "images", "machine", "device", "backend", "history", "photos")


def load_results(folder: Path, published: dict[str, Any] | None = None) -> list[Result]:
    """Every checkpoint below a folder that has an evaluation, in the order of tables.

    Beside `evaluation.json`, files `evaluation-*.json` hold what was measured in other worlds.

    Args:
        folder: with checkpoint folders anywhere below it.
        published: the numbers of an earlier page, by experiment: models of other kinds stay.
    """
    found = [result for file in sorted(folder.rglob(EVALUATION)) if (result := _read(file))]
    new = {result.kind for result in found}
    for experiment, numbers in (published or {}).items():
        earlier = [Result.of_numbers(experiment, model) for model in numbers["models"]]
        found += [result for result in earlier if result.kind not in new]
    order = list(METHODS)
    return sorted(
        found, key=lambda r: (r.experiment, order.index(r.method), r.photos or "", r.seed)
    )


def _read(evaluation: Path) -> Result | None:
    """The model beside an evaluation, if it is one of scenes."""
    config = evaluation.with_name(CONFIG)
    if not config.is_file():
        return None
    training = json.loads(config.read_text(encoding="utf-8"))["training"]
    if "network" not in training.get("experiment", {}) or "spec" not in training["experiment"]:
        return None  # of another kind
    evaluations = {"": json.loads(evaluation.read_text(encoding="utf-8"))}
    for other in sorted(evaluation.parent.glob("evaluation-*.json")):
        figures = json.loads(other.read_text(encoding="utf-8"))
        evaluations[other.stem.removeprefix("evaluation-")] = figures
    name = Path(training["experiment"]["spec"]).stem
    return Result(
        name,
        method_of(training),
        int(training["seed"]),
        training["photos"]["folder"] if "photos" in training else None,
        _command(name, training),
        {key: training[key] for key in KEPT if key in training},
        evaluations,
        evaluation.parent,
    )


def _command(name: str, training: dict[str, Any]) -> str:
    experiment = Experiment.model_validate(training["experiment"])
    words = [name, "--objective", experiment.objective]
    awake = experiment.objective in ("elbo", "wake-sleep")
    if awake and experiment.wake.estimator != "enumerate":
        words += ["--estimator", experiment.wake.estimator]
    if isinstance(experiment.network, SlotsConfig):
        words += ["--network", "slots"]
    elif isinstance(experiment.network, PlainConfig):
        if experiment.network.order == "any":
            words += ["--network", "plain-any"]
        elif awake:
            words += ["--network", "plain"]
    if "photos" in training:
        words += ["--images", training["photos"]["folder"]]
    return " ".join([*words, "--steps", str(training["of_steps"])])


def method_of(training: dict[str, Any]) -> str:
    """How a model was trained: a key of METHODS."""
    experiment = Experiment.model_validate(training["experiment"])
    if "photos" in training:
        return "photos"
    if experiment.objective == "elbo":
        return experiment.wake.estimator
    if isinstance(experiment.network, SlotsConfig):
        return "slots"
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
    return [
        result.name + (" (collapsed)" if result.collapsed else ""),
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
    for name in dict.fromkeys(result.name for result in results):
        mine = [result for result in results if result.name == name]
        cells = [name, str(len(mine)), str(sum(result.collapsed for result in mine))]
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


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None

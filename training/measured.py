"""What was measured on AIR and its rivals where they are compared: runs gathered, as plain data.

What was published once stays, as on the rest of the page: see `results2d`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.folder import CONFIG, EVALUATION
from training.page import number

# Experiments that are compared with each other.
COMPARED = (
    *("multi-mnist", "multi-mnist-dair", "multi-mnist-pyro", "draw"),
    *("omniglot", "omniglot-dair", "omniglot-vae"),
)
BESIDE = ("evaluation-*.json", "represent*.json")  # what else was measured, in a run's folder
ERROR = "reconstruction_error"


@dataclass(frozen=True)
class Measured:
    """A trained 2D model and what was measured on it."""

    row: dict[str, Any]  # plain data
    folder: Path | None  # None when only its numbers are at hand

    @property
    def name(self) -> str:
        """Of the experiment."""
        return str(self.row["experiment"])

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.row["seed"])

    @property
    def figures(self) -> dict[str, Any]:
        """On images like those it learned from, as `evaluate` wrote them."""
        found: dict[str, Any] = self.row["figures"]
        return found

    def beside(self, kind: str) -> list[dict[str, Any]]:
        """What else was measured, of files whose names begin so."""
        return [found for name, found in self.row["beside"].items() if name.startswith(kind)]

    def cells(self) -> list[str]:
        """What a table says of any run: model, seed, steps, processor seconds, bound."""
        row = self.row
        return [
            self.name,
            str(self.seed),
            f"{row['steps']} of {row['of_steps']}",
            number(row["cpu_seconds"], ".0f"),
            number(self.figures["elbo"], ".1f"),
        ]


def load_measured(folder: Path, published: Sequence[dict[str, Any]] = ()) -> list[Measured]:
    """The evaluated runs below a folder that are compared, by experiment and seed.

    Args:
        folder: with output folders of `python -m training train` anywhere below it; what `evaluate`
            and `represent` wrote lies beside each.
        published: rows of an earlier page.
    """
    found = []
    for path in sorted(folder.rglob(EVALUATION)):
        config = path.with_name(CONFIG)
        training = _read(config)["training"] if config.is_file() else {}
        experiment = training.get("experiment", {})
        if experiment.get("name") in COMPARED and experiment.get("estimator") in (
            None,
            "enumerate",
        ):
            found.append(Measured(_row(path, training), path.parent))
    new = {(run.name, run.seed) for run in found}
    earlier = [Measured(row, None) for row in published]
    found += [run for run in earlier if (run.name, run.seed) not in new]
    return sorted(found, key=lambda run: (COMPARED.index(run.name), run.seed))


def _row(path: Path, training: dict[str, Any]) -> dict[str, Any]:
    errors = [point[ERROR] for point in training["history"] if ERROR in point]
    return {
        "experiment": training["experiment"]["name"],
        **{key: training[key] for key in ("seed", "steps", "of_steps", "cpu_seconds")},
        **{key: training[key] for key in ("threads", "machine", "device", "precision")},
        "least_error": min(errors, default=None),  # on held-out images, while it learned
        "figures": _read(path),
        "beside": {
            other.stem: _read(other)
            for pattern in BESIDE
            for other in sorted(path.parent.glob(pattern))
        },
    }


def of(runs: Sequence[Measured], *names: str) -> list[Measured]:
    """The runs of some experiments, in their order."""
    return [run for name in names for run in runs if run.name == name]


def commands(runs: Sequence[Measured], *, represent: bool = False) -> str:
    """How to make the numbers of a section again, as Markdown.

    Args:
        runs: of the section.
        represent: what `represent` wrote belongs to it, instead of what `evaluate` did.
    """
    lines, seen = [], set()
    for run in runs:
        row = run.row
        if run.name in seen:
            continue
        seen.add(run.name)
        lines.append(
            f"python -m training train {run.name} --steps {row['of_steps']} --seed SEED --out DIR"
        )
        if represent:
            lines.append(
                "python -m training represent DIR --seed SEED --json DIR/represent-SEED.json"
            )
            continue
        for name, figures in {"evaluation": run.figures, **row["beside"]}.items():
            if name.startswith("evaluation"):
                counts = " ".join(map(str, figures["counts"]))
                lines.append(
                    f"python -m training evaluate DIR --scenes {figures['images']} "
                    f"--seed {figures['seed']} --counts {counts} --json DIR/{name}.json"
                )
    machines = sorted({f"{run.row['machine']}; {run.row['device']}" for run in runs})
    block = "\n".join(lines)
    return f"Machine: {', '.join(machines)}. Commands:\n\n```\n{block}\n```\n"


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found

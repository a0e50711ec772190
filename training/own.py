"""Training for a SceneSpec of one's own: from the file to a folder that is ready to be served.

A forecast before it starts, an end when it has learned enough, and then everything that belongs to
a model: what it says of its own errors, what it was measured to do, pictures of that, and a card.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from inference.checkpoint import EVALUATION, add_graph, load_checkpoint
from inference.folder import CARD, write_atomically
from inference.graph import GraphError
from renderer.spec import SceneSpec
from training.card import write_card
from training.evaluate import evaluate, table
from training.experiments import Experiment
from training.forecast import AFTERWARDS, BUDGET, rehearse
from training.inferred import BATCH
from training.loop import open_run
from training.page import IMAGES
from training.report import write_report
from training.run import RunOptions
from training.signals import stop_signals

RUNS = Path("runs")  # where models go when nobody says
REPORT, FIGURES = "report", "figures"  # the page, and its pictures for the service's own page
SCENES = 1000  # of the evaluation, of a run that learned from many
LEARNED_FROM = 100  # pictures of training, for each of the evaluation
SEED = 7  # of the evaluation


def train_own(experiment: Experiment, options: RunOptions) -> Path | None:
    """Trains, or goes on training, and finishes the folder; None when it was stopped before.

    Args:
        experiment: what to learn.
        options: how, on this machine. Without steps and minutes, as many steps as the experiment
            has and the default budget has time for; with `stopping`, fewer where fewer do.

    Raises:
        StateError: the folder holds a run of another experiment, seed or code.
        SpecError: the SceneSpec cannot be used.
    """
    leads = options.team.leads
    if leads:
        print(describe(experiment))
    if options.steps is None:
        seconds = BUDGET - AFTERWARDS if options.minutes is None else 60 * options.minutes
        options = replace(options, budget=seconds)
    run = open_run(experiment, options)
    if not run.resumes:
        run.total = options.team.tell(plan(experiment, options))
    with stop_signals() as stopped:
        run.go(stopped)
    if not leads:
        return None
    if run.step != run.total:
        print(f"stopped at step {run.step}; start again with the same arguments to go on")
        return None
    return finish(options.out)


def describe(experiment: Experiment) -> str:
    """What is to be learned, in a line."""
    spec, network = SceneSpec.load(experiment.spec), experiment.network
    return (
        f"{experiment.name}: {len(spec.objects)} classes, up to {spec.count.max} objects, pictures "
        f"of {network.width} x {network.height} px"
    )


def plan(experiment: Experiment, options: RunOptions) -> int:
    """Measures, and tells how long it will take; returns the number of steps."""
    pace = rehearse(experiment, options)
    steps = options.steps
    if steps is None:
        assert options.budget is not None
        steps = pace.steps_in(options.budget)
        if options.minutes is None:
            steps = min(steps, experiment.steps)
    if not options.team.leads:
        return steps
    print(f"measured here: {pace}")
    print(
        f"learns for {'at most ' if options.stopping else ''}{steps:,} steps, about "
        f"{minutes(steps * pace.seconds)}; then up to {minutes(AFTERWARDS)} for calibration, "
        "evaluation and figures"
    )
    if options.stopping is not None:
        print(f"ends earlier when on held-out scenes {options.stopping}")
    if steps < experiment.steps and options.steps is None:
        print(
            f"{experiment.steps:,} steps would be better, "
            f"{minutes(experiment.steps * pace.seconds)} at this pace: give --minutes or --steps, "
            "or a machine with more cores, fewer other programs, or a card"
        )
    return steps


def finish(folder: Path) -> Path:
    """Evaluates a trained model; writes its graph, evaluation.json, the figures, and the card."""
    try:
        add_graph(folder)
    except GraphError as error:
        print(f"has no graph, so that answers will take longer: {error}")
    found = load_checkpoint(folder)
    learned = int(found.config.training["images"])
    scenes = min(SCENES, max(BATCH, learned // LEARNED_FROM))
    backend = found.config.training.get("backend", "auto")
    figures = evaluate(found, scenes=scenes, seed=SEED, backend=backend)
    write_atomically(folder / EVALUATION, (json.dumps(figures, indent=1) + "\n").encode())
    for name, value in table(figures)[:6]:
        print(f"{name}: {value}")
    page = write_report(folder, folder / REPORT)
    shutil.copytree(folder / REPORT / IMAGES, folder / FIGURES, dirs_exist_ok=True)
    found = load_checkpoint(folder)
    write_atomically(folder / CARD, write_card(found, figures, page).encode())
    print(f"{folder}: ready; serve it by\n  python -m service serve --checkpoint {folder}")
    return folder


def minutes(seconds: float) -> str:
    """A time in words that people plan with."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"

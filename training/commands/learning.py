"""Commands that train models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from training.experiments import (
    NetworkName,
    find_experiment,
    going_on,
    relearning,
    starting_point,
    vary,
)
from training.objectives import EstimatorName, ObjectiveName
from training.stopping import Stopping


def train(
    experiment: Annotated[str, tyro.conf.Positional],
    /,
    *,
    out: Path | None = None,
    objective: ObjectiveName | None = None,
    images: Path | None = None,
    shards: Path | None = None,
    start: Path | None = None,
    network: NetworkName | None = None,
    estimator: EstimatorName | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    until: Literal["good", "end"] | None = None,
    seed: int = 0,
    device: Literal["cpu", "cuda"] = "cpu",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    workers: int | None = None,
    threads: int | None = None,
) -> None:
    """Train a model; start again with the same arguments to continue a stopped run.

    By `torchrun --nproc-per-node N -m training train …` N processes, on as many machines as you
    like, share every batch; see docs/scaling.md.

    With a SceneSpec of your own it says how long that will take before it starts, ends when the
    model is good, within 90 minutes on this machine if you do not say otherwise, and leaves a
    folder that is ready to be served: calibrated, evaluated, with figures and a card.

    Args:
        experiment: name of a built-in experiment, or a SceneSpec's YAML file.
        out: folder of the checkpoint, its training state and TensorBoard logs; runs/NAME when not
            given.
        objective: sleep learns from scenes that the renderer drew, elbo from images alone, through
            the renderer, wake-sleep from both; supervised is the paper's baseline.
        images: folder with unlabelled photos of your own table, to learn from by wake-sleep. One in
            five is held out, and the model that explains those best is what is written to `out`.
        shards: folder of scenes that `shards` drew in advance, to learn from instead of drawing.
        start: checkpoint folder with the weights to begin with, of a model of the same objects;
            with `images`, if not given, the shipped model of the experiment's name.
        network: cells is ours; plain is the paper's, with labels in the order in which they come,
            plain-any the same with their order summed out, and slots the same with the objects in
            any of the slots, as the paper drew them.
        estimator: of the bound's gradient by discrete choices; nvil is the paper's, enumerate sums
            them out and needs the network of cells.
        minutes: train about this long.
        steps: train this many steps.
        until: end when held-out scenes are read well enough, or no better than before (good), or at
            the last step (end). When not given, good for a SceneSpec of your own if you name
            neither minutes nor steps.
        seed: of weights and scenes.
        device: where the network runs; a card draws its pictures as well.
        precision: of the convolutions; auto takes bfloat16 where the processor has units for it.
        workers: processes that render on the CPU; auto leaves the rest of the cores to the network,
            and starts none with a card.
        threads: of the network; 1 where other programs keep the cores busy. When not given, the
            cores that `workers` leaves.
    """
    from inference.checkpoint import load_checkpoint
    from training.loop import RunOptions
    from training.loop import train as run
    from training.own import RUNS, train_own
    from training.picture_experiments import PICTURE_EXPERIMENTS, with_estimator
    from training.rival_experiments import RIVAL_EXPERIMENTS
    from training.team import team_of_environment

    flat = experiment in PICTURE_EXPERIMENTS or experiment in RIVAL_EXPERIMENTS
    if shards is not None and (flat or images is not None):
        raise ValueError("--shards are of drawn scenes; leave them out, or --images")
    if until == "good" and (flat or images is not None):
        raise ValueError("--until good is for scenes that are drawn; give --until end, or steps")
    own = images is None and Path(experiment).is_file()
    if until is None:
        until = "good" if own and minutes is None and steps is None else "end"
    with team_of_environment(device) as team:
        options = RunOptions(
            out=out or RUNS / Path(experiment).stem,
            stopping=Stopping() if until == "good" else None,
            start=start,
            images=images,
            shards=shards,
            seed=seed,
            device=device,
            precision=precision,
            steps=steps,
            minutes=minutes,
            workers=workers,
            threads=threads,
            team=team,
        )
        if experiment in PICTURE_EXPERIMENTS:
            if objective is not None or network is not None:
                raise ValueError(
                    f"--objective and --network are for scenes; {experiment} learns from its images"
                )
            run(with_estimator(PICTURE_EXPERIMENTS[experiment], estimator), options)
            return
        if experiment in RIVAL_EXPERIMENTS:
            if objective is not None or network is not None or estimator is not None:
                raise ValueError(
                    f"--objective, --network and --estimator are for AIR; {experiment} is its rival"
                )
            run(RIVAL_EXPERIMENTS[experiment], options)
            return
        if images is not None and objective is None:
            objective = "wake-sleep"
        what = vary(find_experiment(experiment, objective), network, estimator)
        start = starting_point(experiment, start, images)
        if start is not None:
            known = load_checkpoint(start)
            what = relearning(what, known) if images is None else going_on(what, known)
            if team.leads:
                print(f"begins with the weights of {start}")
        options = replace(options, start=start)
        if own:
            train_own(what, options)
        else:
            run(what, options)

"""Training: from an experiment to a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.experiments import Experiment
from training.photo_run import PhotoRun
from training.picture_experiments import PictureExperiment
from training.picture_run import PictureRun
from training.rival_experiments import RivalExperiment
from training.rival_run import RivalRun
from training.run import Run, RunOptions
from training.scene_run import SceneRun
from training.signals import stop_signals

__all__ = ["RunOptions", "train"]

AnyExperiment = Experiment | PictureExperiment | RivalExperiment


def train(experiment: AnyExperiment, options: RunOptions) -> Path:
    """Trains, or goes on training; returns the checkpoint folder.

    The folder holds a usable checkpoint from the first save on, and under `training/` the state
    to go on from and TensorBoard's logs. Starting again with the same arguments continues; on the
    CPU, with as many threads, the result is bit for bit that of an uninterrupted run.

    Raises:
        StateError: the folder holds a run of another experiment, seed or code.
        SpecError: the SceneSpec cannot be used.
        DataError: the images cannot be made.
        TeamError: another process of the team is gone.
    """
    run = open_run(experiment, options)
    with stop_signals() as stopped:
        run.go(stopped)
    return options.out


def open_run(experiment: AnyExperiment, options: RunOptions) -> Run[Any]:
    """The kind of run that an experiment asks for, ready to go; see `train` for what it raises."""
    if isinstance(experiment, PictureExperiment):
        return PictureRun(experiment, options)
    if isinstance(experiment, RivalExperiment):
        return RivalRun(experiment, options)
    return (SceneRun if options.images is None else PhotoRun)(experiment, options)

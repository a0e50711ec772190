"""How long a run will take on this machine, from a few of its steps, before it begins."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from training.experiments import Experiment
from training.run import RunOptions
from training.scene_run import SceneRun

SECONDS = 12.0  # of measuring, about
WARM = 5  # steps that do not count: kernels are compiled, and batches lie ready
LEAST, MOST = 5, 200  # steps that count
BUDGET = 90 * 60.0  # s for all of it, where nobody says otherwise
AFTERWARDS = 12 * 60.0  # s of these for calibration, evaluation and figures, about, at most


@dataclass(frozen=True)
class Pace:
    """What a step takes here, with what else the machine does now."""

    seconds: float  # a step
    processes: int
    batch: int  # pictures a step
    threads: int  # of the network
    workers: int  # processes that draw
    backend: str
    precision: str

    def steps_in(self, seconds: float) -> int:
        """Steps that fit into a time, one at least."""
        return max(1, int(seconds / self.seconds))

    def __str__(self) -> str:
        processes = f"{self.processes} processes, each " if self.processes > 1 else ""
        return (
            f"{self.seconds:.2f} s a step of {self.batch} pictures, "
            f"{self.batch / self.seconds:.0f} pictures/s ({processes}"
            f"{_number(self.threads, 'thread')}, "
            f"{_number(self.workers, 'drawing process', 'es')}, {self.backend}, {self.precision})"
        )


def rehearse(experiment: Experiment, options: RunOptions, *, seconds: float = SECONDS) -> Pace:
    """Trains a few steps of a run that is thrown away, and says what one takes.

    Processes of a team all do so at once, each with its share of the batch.

    Args:
        experiment: what is to be learned.
        options: how, on this machine; nothing is written to its folder.
        seconds: to measure, about; the first steps, which compile and allocate, come on top.
    """
    team, share = options.team, options.team.share_of(experiment.batch)
    with TemporaryDirectory() as folder:
        run = SceneRun(
            experiment.model_copy(update={"batch": share}),
            replace(
                options,
                out=Path(folder),
                steps=MOST,
                stopping=None,
                budget=None,
                team=team.alone(),
            ),
        )
        run.learning.train()
        batches = run.batches(0, WARM + MOST)
        taken, began = 0, time.monotonic()
        for number, batch in enumerate(batches, 1):
            run.learn(batch)
            now = time.monotonic()
            if number <= WARM:
                began = now
            else:
                taken, spent = number - WARM, now - began
                if taken >= LEAST and spent > seconds:
                    break
        batches.close()
        run.close()
        return Pace(
            spent / taken,
            team.size,
            experiment.batch,
            torch.get_num_threads(),
            run.workers,
            run.backend,
            str(run.dtype).removeprefix("torch."),
        )


def _number(n: int, what: str, plural: str = "s") -> str:
    return f"{n or 'no'} {what}{'' if n == 1 else plural}"

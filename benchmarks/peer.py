"""Learning to count digits: ours and the AIR example of Pyro's repository, side by side.

Nothing of Pyro's is kept here: whoever has a copy of its repository names it. The two take turns on
the same images and threads, and only what processors spend on their own steps counts, so that the
figures hold on a machine that is not idle.
"""

from __future__ import annotations

import importlib
import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.part import Figures, Settings
from benchmarks.table import Table
from inference.air2d import Air2d
from training.picture_experiments import PICTURE_EXPERIMENTS
from training.picture_run import enumerated_loss
from training.pictures import Pictures, load_pictures
from training.run import bfloat16_pays

OURS, PYRO = "ours", "pyro"
EXPERIMENT = PICTURE_EXPERIMENTS["multi-mnist-pyro"]
HELD_OUT = 1_000  # images of test digits
LEVELS = (0.9, 0.94, 0.975)  # count accuracies whose time is told
PRESENCE = 0.01  # p(n + 1) / p(n), of both
# The settings of Pyro's tutorial on AIR.
PYRO_SETTINGS: dict[str, Any] = {
    "num_steps": 3,
    "x_size": 50,
    "window_size": 28,
    "z_what_size": 50,
    "rnn_hidden_size": 256,
    "encoder_net": [200],
    "decoder_net": [200],
    "predict_net": [200],
    "bl_predict_net": [200],
    "decoder_output_bias": -2.0,
    "decoder_output_use_sigmoid": True,
    "scale_prior_sd": 0.2,
}
PYRO_RATE, PYRO_BASELINE_RATE = 1e-4, 0.1


class Learner(Protocol):
    """Something that learns to count."""

    def step(self, image: Tensor, part: float) -> None:
        """Learns from a batch `[B, 1, 50, 50]`, when `part` of its time is over."""
        ...

    def count(self, image: Tensor) -> Tensor:
        """How many digits images show, `[B]`."""
        ...


@dataclass(frozen=True)
class Peer:
    """Count accuracy against time while learning from images, beside Pyro's AIR example."""

    pyro: str | None = None
    """A copy of Pyro's repository; its own requirements must be installed."""
    seconds: float = 300.0
    """That each learns, of processors: with one thread those of the clock of an idle machine."""
    ours: float | None = None
    """Seconds that ours learns, if not as long: it plans for all of its time."""
    turn: float = 15.0
    """Seconds that each learns before it is the other's turn, and both are measured."""

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """One row for each measurement of each learner."""
        figures = Figures()
        if self.pyro is None:
            figures.skipped[PYRO] = "name a copy of its repository: --peer.pyro DIR"
            return figures
        limits = {PYRO: self.seconds, OURS: self.seconds if self.ours is None else self.ours}
        if not 0 < self.turn <= min(limits.values()):
            raise ValueError("peer: the turn must be above 0 and not longer than either learns")
        torch.manual_seed(settings.seed)
        try:
            learners: dict[str, Learner] = {PYRO: PyroAir(Path(self.pyro)), OURS: Ours()}
        except ImportError as error:
            figures.skipped[PYRO] = f"{self.pyro}: {error}; install what Pyro itself requires"
            return figures
        pictures = load_pictures(EXPERIMENT.data, "train")
        held_out = load_pictures(EXPERIMENT.data.model_copy(update={"images": HELD_OUT}), "test")
        generator = torch.Generator().manual_seed(settings.seed)
        spent, steps = dict.fromkeys(learners, 0.0), dict.fromkeys(learners, 0)
        clock = dict.fromkeys(learners, 0.0)
        while learning := [name for name in learners if spent[name] < limits[name]]:
            for name in learning:
                learner, limit = learners[name], limits[name]
                until = min(spent[name] + self.turn, limit)
                while spent[name] < until:
                    rows = torch.randint(
                        len(pictures.image), (EXPERIMENT.batch,), generator=generator
                    )
                    image = pictures.batch(rows)
                    began, before = time.perf_counter(), time.process_time()
                    learner.step(image, spent[name] / limit)
                    clock[name] += time.perf_counter() - began
                    spent[name] += time.process_time() - before
                    steps[name] += 1
                row = {
                    "learner": name,
                    "seconds": clock[name],
                    "cpu_seconds": spent[name],
                    "steps": steps[name],
                    "count_accuracy": accuracy(learner, held_out),
                }
                figures.rows.append(row)
                say(f"{name}: {row['count_accuracy']:.3f} after {row['cpu_seconds']:.0f} s")
        return figures

    def tables(self, figures: Figures) -> dict[str, Table]:
        """Steps a second, and how soon each got how far."""
        rows = []
        for name in dict.fromkeys(row["learner"] for row in figures.rows):
            mine = [row for row in figures.rows if row["learner"] == name]
            last = mine[-1]
            reached = [
                next((row for row in mine if row["count_accuracy"] >= level), None)
                for level in LEVELS
            ]
            rows.append(
                (
                    name,
                    f"{last['steps'] / last['cpu_seconds']:.1f}",
                    _times(last),
                    f"{last['count_accuracy']:.4f}",
                    *("–" if row is None else _times(row) for row in reached),
                )
            )
        return {
            "peer": Table(
                f"Learning to count digits, batches of {EXPERIMENT.batch}, "
                f"count accuracy on {HELD_OUT} images of test digits",
                ("learner", "steps/s", "s", "at the end", *(f"s to {level}" for level in LEVELS)),
                tuple(rows),
                note="Seconds that processors spent on the learner's own steps (by the clock, of a "
                "machine that may have done other work beside); the two take turns.",
            )
        }


def _times(row: dict[str, Any]) -> str:
    return f"{row['cpu_seconds']:.0f} ({row['seconds']:.0f})"


@torch.no_grad()
def accuracy(learner: Learner, pictures: Pictures) -> float:
    """The share of images whose count is told rightly."""
    rows = torch.arange(len(pictures.count))
    return float((learner.count(pictures.batch(rows)) == pictures.count).double().mean())


class Ours:
    """The experiment `multi-mnist-pyro`, for as long as there is time."""

    def __init__(self) -> None:
        self.model = Air2d(EXPERIMENT.network)
        self.adam = torch.optim.AdamW(
            self.model.parameters(), weight_decay=EXPERIMENT.weight_decay, fused=True
        )
        self.steps = 0

    def step(self, image: Tensor, part: float) -> None:
        """See `Learner`."""
        self.steps += 1
        warm = min(1.0, self.steps / EXPERIMENT.warmup)
        for group in self.adam.param_groups:
            group["lr"] = EXPERIMENT.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * part))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16_pays()):
            loss = enumerated_loss(self.model, image, EXPERIMENT, part=part).loss
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

    def count(self, image: Tensor) -> Tensor:
        """See `Learner`."""
        return self.model.infer(image).count


class PyroAir:
    """Pyro's example, with its tutorial's settings, from a copy of its repository.

    Args:
        folder: the repository.

    Raises:
        ImportError: it is not there, or what it requires is not installed.
    """

    def __init__(self, folder: Path) -> None:
        sys.path[:0] = [str(folder), str(folder / "examples" / "air")]
        # The example says nothing of corners, which had another default when it was written.
        warnings.filterwarnings("ignore", message="Default grid_sample")
        try:
            pyro, infer, optim, air = (
                importlib.import_module(name)
                for name in ("pyro", "pyro.infer", "pyro.optim", "air")
            )
        finally:
            del sys.path[:2]
        pyro.clear_param_store()
        self.air = air.AIR(**PYRO_SETTINGS)
        adam = optim.Adam(lambda name: {"lr": PYRO_BASELINE_RATE if "bl_" in name else PYRO_RATE})
        self.svi = infer.SVI(
            partial(self.air.model, z_pres_prior_p=self._presence),
            self.air.guide,
            adam,
            loss=infer.TraceGraph_ELBO(),
        )

    def step(self, image: Tensor, part: float) -> None:
        """See `Learner`; its rate is constant."""
        self.svi.step(image[:, 0], batch_size=len(image))

    def count(self, image: Tensor) -> Tensor:
        """See `Learner`."""
        _, presence = self.air.guide(image[:, 0], len(image))
        return torch.cat(presence, 1).sum(1).long()

    @staticmethod
    def _presence(step: int) -> float:
        """p(z_pres = 1) of a step, given the one before: geometric up to three."""
        rest = [PRESENCE**n for n in range(step, 4)]
        return sum(rest[1:]) / sum(rest)

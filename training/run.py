"""One training run: the loop that all experiments share, resumable at any moment.

What a run learns from, what it maximises and on what it is measured is its kind's affair: see
`scene_run` for scenes that a renderer draws, `picture_run` for images with a learned decoder.
"""

from __future__ import annotations

import math
import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from training.dreams import generator_for
from training.objectives import Losses
from training.progress import Progress
from training.schedule import Schedule
from training.state import StateError, load_state, read_meta, save_state
from training.stopping import Landing, Stopping
from training.team import ALONE, Team, lost_workers

STATE = Path("training") / "state.safetensors"
LOGS = Path("training") / "tensorboard"
CALIBRATION = (20, 120)  # steps over which the speed is measured when a time is given
PACED = 50  # steps, at least, over which it is measured again

BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class RunOptions:
    """How to run an experiment on this machine."""

    out: Path
    seed: int = 0
    start: Path | None = None  # a checkpoint folder whose weights to begin with
    images: Path | None = None  # a folder of photos to learn from, and to be held to
    shards: Path | None = None  # a folder of scenes that were drawn in advance
    device: str = "cpu"
    precision: str = "auto"  # float32, bfloat16, or auto: bfloat16 where the processor has it
    steps: int | None = None  # the experiment's own when neither this nor minutes is given
    minutes: float | None = None
    # Processes that render on the CPU. When not given, a third of the cores, or none with a
    # card: it draws as well, in this process.
    workers: int | None = None
    threads: int | None = None  # of the network; the other cores when not given
    save_seconds: float = 60.0
    evaluate_every: int = 500  # steps
    stopping: Stopping | None = None  # when to end before the last step; at it when not given
    # s to learn in. The number of steps follows the pace, up to the experiment's own unless
    # minutes are given: a machine that was busy at first may have time for more.
    budget: float | None = None
    team: Team = ALONE  # the processes that train together


class HeldOut(NamedTuple):
    """What was measured on what a run never learns from."""

    figures: dict[str, Any]  # by name
    panel: Tensor  # [3, h, w] in [0, 1], some of it, and what the network made of it
    caption: str


class _Learner(nn.Module, Generic[BatchT]):
    """What learns, with what it minimises for its forward pass."""

    def __init__(
        self, learning: nn.ModuleDict, losses: Callable[[BatchT, torch.Generator], Losses]
    ) -> None:
        super().__init__()
        self.learning, self._losses = learning, losses

    def forward(self, batch: BatchT, generator: torch.Generator) -> Losses:
        return self._losses(batch, generator)


class Run(ABC, Generic[BatchT]):
    """One run of an experiment: its network, its optimizer, and how far it is.

    A kind of run makes its network, calls `_read_progress` when it goes on with an earlier one,
    and ends by `_learn`.
    """

    def __init__(self, experiment: Schedule, options: RunOptions) -> None:
        self.schedule, self.options = experiment, options
        self.dtype = _precision(options)
        self.step = 0
        self.seconds = 0.0  # spent training, over all sessions
        self.total: int | None = options.steps
        if options.steps is None and options.minutes is None:
            self.total = experiment.steps
        self.history: list[dict[str, Any]] = []
        self.landing: Landing | None = None  # when the end is nearer than it was planned
        self._paced = (0, 0.0)  # step and seconds from which the pace is measured
        self.ended = "all steps are done"
        self.team = options.team
        self.share = self.team.share_of(experiment.batch)  # of a batch, that is this process's own
        self.state_path = self.team.copy_of(options.out / STATE)
        self.resumes = self.state_path.exists()

    def _learn(self, learning: nn.ModuleDict) -> None:
        """Readies what learns, as fresh or where an earlier run stopped."""
        e = self.schedule
        self.learning = learning.to(self.options.device)
        self.optimizer = torch.optim.AdamW(
            self.learning.parameters(),
            lr=e.learning_rate,
            weight_decay=e.weight_decay,
            # One pass over the memory instead of ten: on a CPU four times as fast.
            fused=self.options.device in ("cpu", "cuda"),
        )
        if self.resumes:
            load_state(self.state_path, self.learning, self.optimizer)
        learner = _Learner(self.learning, self._losses)
        self.learner = self.team.unite(learner, uses_all=self._uses_all())

    @abstractmethod
    def batches(self, first: int, last: int) -> Generator[BatchT, None, None]:
        """Batches number `first` to `last` - 1: they depend on seed and number alone."""

    @abstractmethod
    def _losses(self, batch: BatchT, generator: torch.Generator) -> Losses:
        """What a step minimises."""

    @abstractmethod
    def _measure(self) -> HeldOut:
        """How well the network does on what it never learns from."""

    @abstractmethod
    def _save_checkpoint(self, training: dict[str, Any]) -> None:
        """Writes the checkpoint folder; `training` says how it came about."""

    def _uses_all(self) -> bool:
        """Whether every weight takes part in every step; if not sure, not."""
        return False

    def _identity(self) -> dict[str, Any]:
        """What must agree for a run to be continued."""
        return {
            "experiment": self.schedule.model_dump(mode="json", exclude={"steps"}),
            "seed": self.options.seed,
            "precision": str(self.dtype).removeprefix("torch."),
        }

    def _origin(self) -> dict[str, Any]:
        """What else the checkpoint says of how it came about."""
        return {}

    def _progress(self) -> dict[str, Any]:
        """What else a run needs to go on."""
        return {}

    def _scalars(self) -> dict[str, float]:
        """What else is logged."""
        return {}

    def _finish(self) -> None:
        """Called after the last step, before the last save."""

    def _read_progress(self) -> dict[str, Any]:
        meta = read_meta(self.state_path)
        mine, theirs = self._identity(), self._completed(meta["identity"])
        # What an earlier run could not name yet it did not have.
        differing = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
        if differing:
            raise StateError(
                f"{self.state_path}: is a run with another {', '.join(differing)}; "
                "give another --out, or remove that folder to start anew"
            )
        self.step, self.seconds, self.history = meta["step"], meta["seconds"], meta["history"]
        self._paced = (self.step, self.seconds)
        if self.options.steps is None:
            self.total = meta["total"]
        if meta.get("landing") is not None:
            self.landing, self.ended = Landing(*meta["landing"]), meta["ended"]
            self.total = self.landing.last
        return meta

    def _completed(self, identity: dict[str, Any]) -> dict[str, Any]:
        """What an earlier run said of itself; what it could not name yet has its default."""
        try:
            experiment = type(self.schedule).model_validate(identity["experiment"])
        except ValidationError:
            return identity
        named = experiment.model_dump(mode="json", exclude={"steps"})
        return {**identity, "experiment": named}

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to zero."""
        e = self.schedule
        warm = min(1.0, (self.step + 1) / e.warmup)
        return e.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * self._part()))

    def _part(self) -> float:
        """How much of the run after the warm-up is done, in [0, 1]."""
        if self.landing is not None:
            return self.landing.at(self.step)
        warmup = self.schedule.warmup
        if self.step < warmup or self.total is None:
            return 0.0
        return min(1.0, (self.step - warmup) / max(1, self.total - warmup))

    def go(self, stopped: list[int]) -> None:
        """Trains until the end, or until a signal arrives; saves either way.

        Raises:
            TeamError: another process of the team is gone.
        """
        options, leads = self.options, self.team.leads
        if self.step == self.total:
            if leads:
                print(f"{options.out} is trained: all {self.total} steps are done")
            return
        logs = str(options.out / LOGS)
        writer = SummaryWriter(logs, purge_step=self.step) if leads else None
        # With a time to keep to, the end may come later than it is planned now.
        last = self.total if self.total is not None and options.budget is None else 1 << 40
        saved = started = time.monotonic()
        before, first = self.seconds, self.step
        self.learning.train()
        with Progress(self.step, self.total, self.schedule.batch, quiet=not leads) as progress:
            for batch in self.batches(self.step, last):
                losses, norm = self.learn(batch)
                now = time.monotonic()
                self.step += 1
                self.seconds = before + now - started
                if self.step - first == CALIBRATION[0] and self.total is None:
                    self._paced = (self.step, self.seconds)
                if self.step - first == CALIBRATION[1] and self.total is None:
                    self._plan()
                    progress.retarget(self.total)
                progress.advance(self.step, float(losses.loss.detach()))
                if writer is not None and self.step % 20 == 0:
                    self._log(writer, losses.values, norm, progress.images_per_second)
                if self.step % options.evaluate_every == 0 or self.step == self.total:
                    if writer is not None:
                        self._evaluate(writer, progress)
                        self._keep_to_budget(progress)
                        self._consider_stopping(progress)
                    self.total, self.landing, self.ended = self.team.tell(
                        (self.total, self.landing, self.ended)
                    )
                finished = self.step == self.total
                leaves = finished or self.team.any(bool(stopped))
                if leads:
                    if finished:
                        self._finish()
                    if leaves or now - saved > options.save_seconds:
                        self.save()
                        saved = time.monotonic()
                if leaves:
                    break
        if writer is not None:
            writer.close()

    def _plan(self) -> None:
        """As many steps as the given minutes are enough for, at the pace so far."""
        assert self.options.minutes is not None
        step, seconds = self._paced
        pace = (self.seconds - seconds) / (self.step - step)
        left = int((self.options.minutes * 60 - self.seconds) / pace)
        self.total = self.team.tell(self.step + max(self.schedule.warmup, left))

    def learn(self, batch: BatchT) -> tuple[Losses, Tensor]:
        """One step; returns its losses, and the norm of the gradient before it was clipped.

        Raises:
            FloatingPointError: the gradient is not finite.
            TeamError: another process of the team is gone.
        """
        e, options = self.schedule, self.options
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        kind, mixed = torch.device(options.device).type, self.dtype != torch.float32
        generator = generator_for(options.seed, "step", self.step, *self._own_key())
        self.optimizer.zero_grad(set_to_none=True)
        with lost_workers():
            with torch.autocast(kind, dtype=self.dtype, enabled=mixed):
                losses = self.learner(batch, generator)
            losses.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.learning.parameters(), e.clip_norm)
        if not bool(norm.isfinite()):
            raise FloatingPointError(
                f"step {self.step}: the gradient is not finite; the last state in "
                f"{self.state_path} is from before. Lower the learning rate"
            )
        self.optimizer.step()
        return losses, norm

    def _own_key(self) -> tuple[int, ...]:
        """What tells the random numbers of this process from those of the others."""
        return (self.team.rank, self.team.size) if self.team.together else ()

    def _keep_to_budget(self, progress: Progress) -> None:
        """As many steps as the time is enough for, at the pace since this was last asked."""
        options, (step, seconds) = self.options, self._paced
        if options.budget is None or self.landing is not None or self.step == self.total:
            return
        if self.step - step < PACED:  # just begun, or gone on
            return
        pace = (self.seconds - seconds) / (self.step - step)
        self._paced = (self.step, self.seconds)
        total = self.step + max(1, int((options.budget - self.seconds) / pace))
        if options.minutes is None:
            total = min(total, self.schedule.steps)
        if total != self.total:
            self.total = total
            progress.retarget(total)

    def _consider_stopping(self, progress: Progress) -> None:
        """Brings the end nearer where what was measured allows it."""
        stopping = self.options.stopping
        if stopping is None or self.landing is not None or self.total is None:
            return
        reason = stopping.reason(self.history, self._part())
        last = self.step + stopping.steps_to_land(self.step)
        if reason is None or last >= self.total:
            return
        self.landing = Landing(self.step, last, self._part())
        self.total, self.ended = last, reason
        progress.retarget(last)
        progress.say(f"{reason}: ends at step {last}")

    def save(self) -> None:
        """Writes the checkpoint, then the state to go on from."""
        training = {
            "experiment": self.schedule.model_dump(mode="json"),
            "seed": self.options.seed,
            "steps": self.step,
            "of_steps": self.total,
            "ended": self.ended if self.step == self.total else "not yet",
            "images": self.step * self.schedule.batch,
            "seconds": round(self.seconds, 1),
            "precision": str(self.dtype).removeprefix("torch."),
            "device": self.options.device,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "processes": self.team.size,
            "torch": torch.__version__,
            "history": self.history,
            **self._origin(),
        }
        self._save_checkpoint(training)
        meta = {
            "identity": self._identity(),
            "step": self.step,
            "total": self.total,
            "seconds": self.seconds,
            "history": self.history,
            "landing": self.landing,
            "ended": self.ended,
            **self._progress(),
        }
        save_state(self.state_path, self.learning, self.optimizer, meta)

    def _log(
        self, writer: SummaryWriter, losses: dict[str, Any], norm: Tensor, speed: float
    ) -> None:
        for name, value in losses.items():
            writer.add_scalar(name, float(value.detach()), self.step)
        writer.add_scalar("gradient_norm", float(norm), self.step)
        writer.add_scalar("learning_rate", self.learning_rate(), self.step)
        for name, value in self._scalars().items():
            writer.add_scalar(name, value, self.step)
        writer.add_scalar("images_per_second", speed, self.step)

    def _evaluate(self, writer: SummaryWriter, progress: Progress) -> None:
        self.learning.eval()
        found = self._measure()
        self.learning.train()
        row = {"step": self.step, "seconds": round(self.seconds, 1), **found.figures}
        for name, value in row.items():
            if name != "step" and value is not None:
                writer.add_scalar(f"held_out/{name}", value, self.step)
        writer.add_image(found.caption, found.panel, self.step)
        writer.flush()
        self.history.append(row)
        progress.report(row)


def bfloat16_pays() -> bool:
    """Whether this processor has instructions for bfloat16; without, float32 is faster."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def _precision(options: RunOptions) -> torch.dtype:
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if options.precision in named:
        return named[options.precision]
    if options.precision != "auto":
        raise ValueError(f"unknown precision {options.precision!r}: float32, bfloat16 or auto")
    fast = bfloat16_pays() if options.device == "cpu" else torch.cuda.is_bf16_supported()
    return torch.bfloat16 if fast else torch.float32

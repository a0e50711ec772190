"""The training loop: one for all experiments, resumable at any moment."""

from __future__ import annotations

import math
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from inference.build import build_posterior
from inference.checkpoint import load_checkpoint, save_checkpoint
from renderer.backend import Format, Renderer, open_renderer
from renderer.choice import choose_backend
from renderer.cpus import available_cpus
from renderer.prior import sample
from renderer.spec import SceneSpec
from training.dreams import Dreams, generator_for, stream
from training.evaluate import quality_limits
from training.experiments import Experiment
from training.metrics import accuracy
from training.objectives import Batch, make_objective
from training.panels import comparison_panel
from training.progress import Progress
from training.state import StateError, load_state, read_meta, save_state
from training.unlabelled import BLUR, Keeper, Photos, matched_std

STATE = Path("training") / "state.safetensors"
LOGS = Path("training") / "tensorboard"
BACKEND_PATIENCE = 60.0  # s to get all backends ready to be compared: a run draws for hours
HELD_OUT_SCENES = 256  # watched while training, never trained on
CALIBRATION = (20, 120)  # steps over which the speed is measured when a time is given


@dataclass(frozen=True)
class RunOptions:
    """How to run an experiment on this machine."""

    out: Path
    seed: int = 0
    start: Path | None = None  # a checkpoint folder whose weights to begin with
    images: Path | None = None  # a folder of photos to learn from, and to be held to
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


def train(experiment: Experiment, options: RunOptions) -> Path:
    """Trains, or goes on training; returns the checkpoint folder.

    The folder holds a usable checkpoint from the first save on, and under `training/` the state
    to go on from and TensorBoard's logs. Starting again with the same arguments continues; on the
    CPU, with as many threads, the result is bit for bit that of an uninterrupted run.

    Raises:
        StateError: the folder holds a run of another experiment, seed or code.
        SpecError: the SceneSpec cannot be used.
    """
    run = Run(experiment, options)
    with _stop_signals() as stopped:
        run.go(stopped)
    return options.out


class Run:
    """One run of an experiment: its network, its optimizer, and how far it is."""

    def __init__(self, experiment: Experiment, options: RunOptions) -> None:
        self.experiment, self.options = experiment, options
        self.spec = SceneSpec.load(experiment.spec)
        awake = experiment.objective in ("elbo", "wake-sleep")
        torch.manual_seed(int(generator_for(options.seed, "weights").initial_seed()))
        self.posterior = build_posterior(self.spec, experiment.network).to(options.device)
        self.start: str | None = None  # hash of the weights to begin with
        if options.start is not None:
            start = load_checkpoint(options.start)
            self.start = start.sha256
            self.posterior.load_state_dict(start.posterior.state_dict())
        self.photos: Photos | None = None
        if options.images is not None:
            if not awake:
                raise ValueError(
                    f"the objective {experiment.objective!r} does not learn from photos; with "
                    "--images choose --objective wake-sleep, or elbo"
                )
            self.photos = Photos.load(
                options.images, height=experiment.network.height, width=experiment.network.width
            )
        self.dtype = _precision(options)
        self.step = 0
        self.seconds = 0.0  # spent training, over all sessions
        self.total: int | None = options.steps
        if options.steps is None and options.minutes is None:
            self.total = experiment.steps
        self.history: list[dict[str, Any]] = []
        self.quality: dict[str, float] | None = None  # measured at the end
        self.best_step = 0  # whose weights were kept, of a run that is held to photos
        self.backend = experiment.backend
        self.state_path = options.out / STATE
        resumes = self.state_path.exists()
        if resumes:
            self._read_progress()
        self.decoders = 1  # processes that draw what images are compared with
        # Searching draws far more than dreaming does: the cores are its own.
        workers = 0 if awake and options.workers is None else options.workers
        self.draws_on = "cpu" if workers else options.device
        if self.backend == "auto":
            self.backend = choose_backend(
                self.spec, self._format(), device=self.draws_on, patience=BACKEND_PATIENCE
            )
        if self.backend == "opengl":  # which hands over pictures on the CPU
            self.draws_on = "cpu"
        # A card that draws does so in this process: pictures are spared the way through the host.
        self.workers, threads = _share_cores(workers if self.draws_on == "cpu" else 0)
        if awake and self.draws_on == "cpu":  # network and decoder take turns; both wait for both
            threads = self.decoders = max(1, available_cpus() // 2)
        torch.set_num_threads(options.threads or threads)
        wake, self.keeper = experiment.wake, None
        if self.photos is not None:
            decoder = self._decoder.render
            std = matched_std(self.posterior, self.photos.learned, decoder, wake.shrink)
            wake = wake.model_copy(update={"std": (std, std), "blur": (BLUR, BLUR)})
            self.keeper = Keeper(self.posterior, self.photos.held_out, decoder, wake.shrink, std)
        self.objective = make_objective(
            experiment.objective, self.posterior, wake, lambda: self._decoder
        )
        self.learning = nn.ModuleDict({"posterior": self.posterior, **self.objective.parts})
        self.learning.to(options.device)
        self.optimizer = torch.optim.AdamW(
            self.learning.parameters(),
            lr=experiment.learning_rate,
            weight_decay=experiment.weight_decay,
        )
        if resumes:
            load_state(self.state_path, self.learning, self.optimizer)
            if self.keeper is not None:
                self.keeper.goes_on(load_checkpoint(options.out).posterior, self.best_step)
        self.dreams = Dreams(
            self.spec,
            height=experiment.network.height,
            width=experiment.network.width,
            supersample=experiment.supersample,
            backend=self.backend,
            batch=experiment.batch,
            seed=options.seed,
            device=self.draws_on,
        )

    def _format(self, shrink: int = 1) -> Format:
        network = self.experiment.network
        return Format(
            height=network.height // shrink,
            width=network.width // shrink,
            supersample=self.experiment.supersample,
            slots=None,
        )

    @cached_property
    def _decoder(self) -> Renderer:
        """What images are compared with."""
        return open_renderer(
            self.spec,
            **self._format(self.experiment.wake.shrink),
            backend=self.backend,
            device=self.draws_on,
            processes=self.decoders,
        )

    def _identity(self) -> dict[str, Any]:
        """What must agree for a run to be continued."""
        return {
            "experiment": self.experiment.model_dump(mode="json", exclude={"steps"}),
            "spec": self.spec.model_dump(mode="json"),
            "seed": self.options.seed,
            "precision": str(self.dtype).removeprefix("torch."),
            "start": self.start,
            "images": None if self.photos is None else self.photos.sha256,
        }

    def _read_progress(self) -> None:
        meta = read_meta(self.state_path)
        mine, theirs = self._identity(), meta["identity"]
        if mine != theirs:
            differing = [key for key in mine if mine[key] != theirs.get(key)]
            raise StateError(
                f"{self.state_path}: is a run with another {', '.join(differing)}; "
                "give another --out, or remove that folder to start anew"
            )
        self.step, self.seconds, self.history = meta["step"], meta["seconds"], meta["history"]
        # What is fastest may have changed since, the pictures of a run may not.
        self.backend = meta.get("backend", self.backend)
        self.best_step = meta.get("best_step", 0)
        if self.options.steps is None:
            self.total = meta["total"]

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to zero."""
        e = self.experiment
        warm = min(1.0, (self.step + 1) / e.warmup)
        return e.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * self._part()))

    def tolerance(self) -> float:
        """From the experiment's to a thirtieth of it, evenly in its logarithm, then none (m)."""
        part = self._part() / self.experiment.tolerance_until
        return self.experiment.tolerance * 30**-part if part < 1 else 0.0

    def _part(self) -> float:
        """How much of the run after the warm-up is done, in [0, 1]."""
        warmup = self.experiment.warmup
        if self.step < warmup or self.total is None:
            return 0.0
        return min(1.0, (self.step - warmup) / max(1, self.total - warmup))

    def go(self, stopped: list[int]) -> None:
        """Trains until the end, or until a signal arrives; saves either way."""
        e, options = self.experiment, self.options
        device = torch.device(options.device)
        if self.step == self.total:
            print(f"{options.out} is trained: all {self.total} steps are done")
            return
        writer = SummaryWriter(str(options.out / LOGS), purge_step=self.step)
        last = self.total if self.total is not None else 1 << 40
        batches = stream(self.dreams, self.step, last, workers=self.workers)
        saved = calibrated = started = time.monotonic()
        before = self.seconds
        first = self.step
        self.posterior.train()
        with Progress(self.step, self.total, e.batch) as progress:
            for pictures, scene in batches:
                for group in self.optimizer.param_groups:
                    group["lr"] = self.learning_rate()
                image = pictures.to(device).permute(0, 3, 1, 2).float().div_(255.0)
                generator = generator_for(options.seed, "step", self.step)
                photos = image
                if self.photos is not None:
                    photos = self.photos.batch(e.batch, generator).to(device)
                batch = Batch(image, scene.to(device), photos)
                with torch.autocast(
                    device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
                ):
                    losses = self.objective(
                        batch,
                        part=self._part(),
                        tolerance=self.tolerance(),
                        generator=generator,
                    )
                self.optimizer.zero_grad(set_to_none=True)
                losses.loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(self.learning.parameters(), e.clip_norm)
                if not bool(norm.isfinite()):
                    raise FloatingPointError(
                        f"step {self.step}: the gradient is not finite; the last state in "
                        f"{self.state_path} is from before. Lower the learning rate"
                    )
                self.optimizer.step()
                now = time.monotonic()
                self.step += 1
                self.seconds = before + now - started
                if self.step - first == CALIBRATION[0]:
                    calibrated = now
                if self.step - first == CALIBRATION[1] and self.total is None:
                    pace = (now - calibrated) / (CALIBRATION[1] - CALIBRATION[0])
                    assert options.minutes is not None
                    self.total = self.step + max(
                        e.warmup, int((options.minutes * 60 - self.seconds) / pace)
                    )
                    progress.retarget(self.total)
                progress.advance(self.step, float(losses.loss.detach()))
                if self.step % 20 == 0:
                    self._log(writer, losses.values, norm, progress.images_per_second)
                if self.step % options.evaluate_every == 0 or self.step == self.total:
                    self._evaluate(writer, progress)
                finished = self.step == self.total
                if finished:
                    self.quality = self._measure_quality()
                if finished or stopped or now - saved > options.save_seconds:
                    self.save()
                    saved = time.monotonic()
                if finished or stopped:
                    break
        writer.close()
        if self.keeper is not None:
            print(self.keeper)

    def save(self) -> None:
        """Writes the checkpoint, then the state to go on from."""
        training = {
            "experiment": self.experiment.model_dump(mode="json"),
            "objective": self.experiment.objective,
            "seed": self.options.seed,
            "steps": self.step,
            "of_steps": self.total,
            "images": self.step * self.experiment.batch,
            "seconds": round(self.seconds, 1),
            "precision": str(self.dtype).removeprefix("torch."),
            "device": self.options.device,
            "backend": self.backend,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "torch": torch.__version__,
            "history": self.history,
            **self._origin(),
        }
        save_checkpoint(
            self.options.out,
            self.posterior if self.keeper is None else self.keeper.best,
            name=self.experiment.name,
            training=training,
            quality=self.quality,
        )
        meta = {
            "identity": self._identity(),
            "backend": self.backend,
            "step": self.step,
            "total": self.total,
            "seconds": self.seconds,
            "history": self.history,
            "best_step": 0 if self.keeper is None else self.keeper.best_step,
        }
        save_state(self.state_path, self.learning, self.optimizer, meta)

    def _origin(self) -> dict[str, Any]:
        """What a run that did not begin with nothing began with, and what became of it."""
        origin: dict[str, Any] = {}
        if self.start is not None:
            origin["start_sha256"] = self.start
        if self.photos is not None and self.keeper is not None:
            origin["photos"] = {
                "learned": len(self.photos.learned),
                "held_out": len(self.photos.held_out),
                "bound_at_the_start": float(self.keeper.first.mean()),
                "bound": float(self.keeper.bounds.mean()),
                "kept_step": self.keeper.best_step,
            }
        return origin

    def _log(
        self, writer: SummaryWriter, losses: dict[str, Any], norm: torch.Tensor, speed: float
    ) -> None:
        for name, value in losses.items():
            writer.add_scalar(name, float(value.detach()), self.step)
        writer.add_scalar("gradient_norm", float(norm), self.step)
        writer.add_scalar("learning_rate", self.learning_rate(), self.step)
        writer.add_scalar("tolerance", self.tolerance(), self.step)
        writer.add_scalar("images_per_second", speed, self.step)

    def _measure_quality(self) -> dict[str, float]:
        kept = self.posterior if self.keeper is None else self.keeper.best
        kept.eval()
        limits = quality_limits(
            kept,
            generator=generator_for(self.options.seed, "quality"),
            backend=self.backend,
            supersample=self.experiment.supersample,
            photos=None if self.photos is None else self.photos.held_out,
        )
        self.posterior.train()
        return limits

    def _evaluate(self, writer: SummaryWriter, progress: Progress) -> None:
        renderer = open_renderer(
            self.spec, **self._format(), backend=self.backend, device=self.draws_on
        )
        true = sample(
            self.spec, HELD_OUT_SCENES, generator=generator_for(self.options.seed, "held out")
        )
        image = renderer.render(true)
        self.posterior.eval()
        inferred = self.posterior.infer(image.to(self.options.device)).scene.to("cpu")
        self.posterior.train()
        figures = accuracy(self.spec, inferred, true)
        row: dict[str, Any] = {"step": self.step, "seconds": round(self.seconds, 1)}
        for name in ("count_accuracy", "identity_accuracy", "recall", "precision"):
            row[name] = figures[name]
        for name in ("position_error_m", "yaw_error_rad", "azimuth_error_rad"):
            errors = figures[name]
            assert isinstance(errors, dict)
            row[name] = errors["median"]
        rendered = renderer.render(inferred)
        row["reconstruction_mse"] = float((rendered - image).square().mean())
        if self.keeper is not None:
            row["bound"] = float(self.keeper.offer(self.posterior, self.step).mean())
        for name, value in row.items():
            if name != "step" and value is not None:
                writer.add_scalar(f"held_out/{name}", value, self.step)
        shown = slice(0, 8)
        panel = comparison_panel(image[shown], rendered[shown])
        writer.add_image("image_above_rerendered_inference", panel, self.step)
        writer.flush()
        self.history.append(row)
        progress.report(row)


def _precision(options: RunOptions) -> torch.dtype:
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if options.precision in named:
        return named[options.precision]
    if options.precision != "auto":
        raise ValueError(f"unknown precision {options.precision!r}: float32, bfloat16 or auto")
    if options.device == "cpu":
        # Without matrix units for it, bfloat16 on a CPU is slower than float32.
        fast = torch.cpu._is_amx_tile_supported()
    else:
        fast = torch.cuda.is_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def _share_cores(workers: int | None) -> tuple[int, int]:
    """Worker processes that render, and threads for the network, of the cores we may use."""
    cores = available_cpus()
    if workers is None:
        workers = 0 if cores == 1 else max(1, cores // 3)
    return workers, max(1, cores - workers)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Turns Ctrl-C and SIGTERM into a wish to stop after the current step.

    Yields a list that stays empty until a signal arrives; the second one interrupts at once.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, where signals cannot be caught
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

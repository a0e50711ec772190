"""A run in the world of a renderer: it learns scenes from their pictures."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference.build import AnyPosterior, build_posterior
from inference.checkpoint import load_checkpoint, save_checkpoint
from inference.posterior import Posterior
from renderer.backend import Format, Renderer, open_renderer
from renderer.choice import choose_backend
from renderer.cpus import available_cpus
from renderer.prior import sample
from renderer.spec import SceneSpec
from training.calibration import LEARNED_FROM, SCENES, Fitted, calibrate
from training.dreams import Dreams, generator_for, stream
from training.experiments import Experiment
from training.inferred import BATCH
from training.metrics import accuracy
from training.objectives import Batch, Losses, make_objective
from training.panels import comparison_panel
from training.run import HeldOut, Run, RunOptions
from training.shards import Shards, read_manifest
from training.stopping import Best

BACKEND_PATIENCE = 60.0  # s to get all backends ready to be compared: a run draws for hours
HELD_OUT_SCENES = 256  # watched while training, never trained on


class SceneRun(Run[Batch]):
    """One run of an experiment of scenes.

    Args:
        experiment: what to learn.
        options: how, on this machine.

    Raises:
        StateError: the folder holds a run of another experiment, seed or code.
        SpecError: the SceneSpec cannot be used.
    """

    def __init__(self, experiment: Experiment, options: RunOptions) -> None:
        super().__init__(experiment, options)
        self.experiment = experiment
        self.spec = SceneSpec.load(experiment.spec)
        awake = experiment.objective in ("elbo", "wake-sleep")
        torch.manual_seed(int(generator_for(options.seed, "weights").initial_seed()))
        self.posterior = build_posterior(self.spec, experiment.network).to(options.device)
        self.start: str | None = None  # hash of the weights to begin with
        if options.start is not None:
            start = load_checkpoint(options.start)
            self.start = start.sha256
            self.posterior.load_state_dict(start.posterior.state_dict())
        self.fitted: Fitted | None = None  # at the end
        self.backend = experiment.backend
        if self.resumes:
            meta = self._read_progress()
            # What is fastest may have changed since, the pictures of a run may not.
            self.backend = meta.get("backend", self.backend)
        self.decoders = 1  # processes that draw what images are compared with
        # Searching draws far more than dreaming does: the cores are its own.
        idle = awake or options.shards is not None
        workers = 0 if idle and options.workers is None else options.workers
        self._decoders_open: list[Renderer] = []
        self.draws_on = "cpu" if workers else options.device
        if self.backend == "auto" and self.team.leads:
            self.backend = choose_backend(
                self.spec, self._format(), device=self.draws_on, patience=BACKEND_PATIENCE
            )
        self.backend = self.team.tell(self.backend)
        if self.backend == "opengl":  # which hands over pictures on the CPU
            self.draws_on = "cpu"
        # A card that draws does so in this process: pictures are spared the way through the host.
        cores = max(1, available_cpus() // self.team.local_size)
        self.workers, threads = _share_cores(workers if self.draws_on == "cpu" else 0, cores)
        if awake and self.draws_on == "cpu":  # network and decoder take turns; both wait for both
            threads = self.decoders = max(1, cores // 2)
        torch.set_num_threads(options.threads or threads)
        self.objective = make_objective(
            experiment.objective,
            self.posterior,
            experiment.wake,
            lambda: self._open_decoder(self.spec),
        )
        self._learn(nn.ModuleDict({"posterior": self.posterior, **self.objective.parts}))
        self.dreams: Dreams | Shards = self._dreams_of(self.spec)
        if options.shards is not None:
            self.dreams = self._read(options.shards)
        self.best: Best | None = None  # of a run that may end when it is good enough
        if options.stopping is not None:
            self.best = Best(self.posterior)
            if self.resumes and self.team.leads and meta.get("best") is not None:
                self.best.step, self.best.score = meta["best"]
                kept = load_checkpoint(options.out).posterior
                self.best.network.load_state_dict(kept.state_dict())

    def _read(self, folder: Path) -> Shards:
        """Shards instead of dreams."""
        team, experiment = self.team, self.experiment
        shards = Shards(folder, experiment.batch, self.options.seed, team.rank, team.size)
        network = experiment.network
        shards.check(self.spec, network.height, network.width, experiment.supersample)
        return shards

    def _dreams_of(self, spec: SceneSpec) -> Dreams:
        """What the sleep phase learns from."""
        experiment = self.experiment
        return Dreams(
            spec,
            height=experiment.network.height,
            width=experiment.network.width,
            supersample=experiment.supersample,
            backend=self.backend,
            batch=self.share,
            seed=self.options.seed,
            own=self._own_key(),
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

    def _open_decoder(self, spec: SceneSpec) -> Renderer:
        """What images are compared with."""
        decoder = open_renderer(
            spec,
            **self._format(self.experiment.wake.shrink),
            backend=self.backend,
            device=self.draws_on,
            processes=self.decoders,
        )
        self._decoders_open.append(decoder)
        return decoder

    def close(self) -> None:
        """Frees what draws for the wake phase, and its processes; it cannot go on then."""
        for decoder in self._decoders_open:
            decoder.close()

    def _uses_all(self) -> bool:
        asleep = self.experiment.objective == "sleep" and isinstance(self.posterior, Posterior)
        return asleep and self.spec.camera.moves and self.posterior.slots > 1

    def _identity(self) -> dict[str, Any]:
        shards = self.options.shards
        return {
            **super()._identity(),
            "spec": self.spec.model_dump(mode="json"),
            "start": self.start,
            "shards": None if shards is None else read_manifest(shards).sha256,
        }

    def tolerance(self) -> float:
        """From the experiment's to a thirtieth of it, evenly in its logarithm, then none (m)."""
        part = self._part() / self.experiment.tolerance_until
        return self.experiment.tolerance * 30**-part if part < 1 else 0.0

    def batches(self, first: int, last: int) -> Generator[Batch, None, None]:
        """See `Run.batches`."""
        device = self.options.device
        batches = stream(self.dreams, first, last, workers=self.workers)
        for pictures, scene in batches:
            image = pictures.to(device).permute(0, 3, 1, 2).float().div_(255.0)
            yield Batch(image, scene.to(device), image)

    def _losses(self, batch: Batch, generator: torch.Generator) -> Losses:
        return self.objective(
            batch, part=self._part(), tolerance=self.tolerance(), generator=generator
        )

    def _scalars(self) -> dict[str, float]:
        return {"tolerance": self.tolerance()}

    def _progress(self) -> dict[str, Any]:
        best = self.best
        known = best is not None and best.step > 0
        return {
            "backend": self.backend,
            "best": [best.step, best.score] if best is not None and known else None,
        }

    def _kept(self) -> AnyPosterior:
        """The model that the run is to end with."""
        best = self.best
        return self.posterior if best is None or best.step == 0 else best.network

    def _save_checkpoint(self, training: dict[str, Any]) -> None:
        save_checkpoint(
            self.options.out,
            self._kept(),
            name=self.experiment.name,
            training=training,
            calibration=None if self.fitted is None else self.fitted.calibration,
            novelty=None if self.fitted is None else self.fitted.limits,
        )

    def _origin(self) -> dict[str, Any]:
        """What a run that did not begin with nothing began with, and what became of it."""
        origin: dict[str, Any] = {
            "objective": self.experiment.objective,
            "backend": self.backend,
        }
        if self.start is not None:
            origin["start_sha256"] = self.start
        if self.best is not None and self.best.step:
            origin["kept_step"] = self.best.step
        return origin

    def _finish(self) -> None:
        self._calibrate()

    def _calibrate(self, photos: Tensor | None = None) -> None:
        """Fits what the model says of its errors, on more scenes the longer it has learned."""
        kept = self._kept().eval()
        scenes = min(SCENES, max(BATCH, self.step * self.schedule.batch // LEARNED_FROM))
        self.fitted = calibrate(
            kept,
            backend=self.backend,
            supersample=self.experiment.supersample,
            scenes=scenes,
            refined_scenes=scenes // 4,
            seed=self.options.seed,
            photos=photos,
        )
        self.posterior.train()

    def _measure(self) -> HeldOut:
        spec = self.posterior.spec  # whose colours photos may have changed
        renderer = open_renderer(spec, **self._format(), backend=self.backend, device=self.draws_on)
        true = sample(spec, HELD_OUT_SCENES, generator=generator_for(self.options.seed, "held out"))
        image = renderer.render(true)
        inferred = self.posterior.infer(image.to(self.options.device)).scene.to("cpu")
        figures = accuracy(spec, inferred, true)
        row: dict[str, Any] = {}
        for name in ("count_accuracy", "identity_accuracy", "recall", "precision"):
            row[name] = figures[name]
        for name in ("position_error_m", "yaw_error_rad", "azimuth_error_rad"):
            errors = figures[name]
            assert isinstance(errors, dict)
            row[name] = errors["median"]
        rendered = renderer.render(inferred)
        row["reconstruction_mse"] = float((rendered - image).square().mean())
        shown = slice(0, 8)
        panel = comparison_panel(image[shown], rendered[shown])
        if self.best is not None:
            self.best.offer(self.posterior, self.step, row)
        return HeldOut(row, panel, "image_above_rerendered_inference")


def _share_cores(workers: int | None, cores: int) -> tuple[int, int]:
    """Worker processes that render, and threads for the network, of the cores we may use."""
    if workers is None:
        workers = 0 if cores == 1 else max(1, cores // 3)
    return workers, max(1, cores - workers)

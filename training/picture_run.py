"""A run on images with a learned decoder: it learns what they are made of from nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from inference.air2d import Air2d
from inference.checkpoint2d import save_checkpoint2d
from inference.enumerated import enumerated_bound
from inference.estimators import ESTIMATORS, Baseline, bound_loss
from training.dreams import generator_for
from training.objectives import Losses
from training.panels import windows_panel
from training.picture_evaluation import measure
from training.picture_experiments import PictureExperiment
from training.pictures import load_pictures
from training.run import HeldOut, Run, RunOptions

HELD_OUT = 1_000  # images of other digits, watched while training
SHOWN = 10  # of them in a panel
PANELS = Path("training") / "panels"


class PictureRun(Run[Tensor]):
    """One run of an experiment of images.

    Args:
        experiment: what to learn.
        options: how, on this machine.

    Raises:
        ValueError: an option that images have no use for.
        StateError: the folder holds a run of another experiment, seed or code.
        DataError: the images cannot be made.
    """

    def __init__(self, experiment: PictureExperiment, options: RunOptions) -> None:
        if options.start is not None or options.images is not None:
            raise ValueError(
                f"--start and --images are for scenes of a renderer; {experiment.name} begins "
                "with nothing and brings its own images"
            )
        super().__init__(experiment, options)
        self.experiment = experiment
        torch.manual_seed(int(generator_for(options.seed, "weights").initial_seed()))
        self.model = Air2d(experiment.network)
        self.cpu_seconds = 0.0  # of all sessions before this one
        if self.resumes:
            self.cpu_seconds = self._read_progress()["cpu_seconds"]
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        parts: dict[str, nn.Module] = {"posterior": self.model}
        self.baseline: Baseline | None = None
        if experiment.estimator == "nvil":
            self.baseline = Baseline(experiment.network.hidden)
            parts["baseline"] = self.baseline
        self._learn(nn.ModuleDict(parts))
        self.pictures = load_pictures(experiment.data, "train")
        watched = experiment.data.model_copy(update={"images": HELD_OUT})
        self.held_out = load_pictures(watched, "test")
        self._began = time.process_time()

    def _batches(self, first: int, last: int) -> Iterator[Tensor]:
        n, options = len(self.pictures.image), self.options
        for number in range(first, last):
            generator = generator_for(options.seed, "batch", number)
            rows = torch.randint(n, (self.experiment.batch,), generator=generator)
            yield self.pictures.batch(rows).to(options.device)

    def _losses(self, batch: Tensor, generator: torch.Generator) -> Losses:
        model, e = self.model, self.experiment
        if e.estimator == "enumerate":
            rows = torch.arange(len(batch), device=batch.device).repeat_interleave(e.samples)
            weight = self._code_weight()
            found = enumerated_bound(
                model,
                model.encode(batch).select(rows),
                code_weight=weight,
                toll=(1 - weight) * e.toll,
                generator=generator,
            )
            loss = -found.mixed(self._random_count()).mean()
            return Losses(loss, {"bound": found.bound.mean()})
        surrogate = bound_loss(
            model,
            batch,
            batch,
            model.decoder,
            model.likelihood,
            model.config.prior,
            ESTIMATORS[e.estimator],
            samples=e.samples,
            baseline=self.baseline,
            generator=generator,
        )
        return Losses(surrogate.loss, {"bound": surrogate.bound.mean()})

    def _code_weight(self) -> float:
        """What a nat of a code's divergence counts now."""
        e = self.experiment
        share = min(1.0, self._part() / e.code_weight_until)
        return e.code_weight + (1 - e.code_weight) * share

    def _random_count(self) -> float:
        """In which share of cases the count is told at random now."""
        e = self.experiment
        return e.random_count * max(0.0, 1 - self._part() / e.random_count_until)

    def _scalars(self) -> dict[str, float]:
        return {"code_weight": self._code_weight(), "random_count": self._random_count()}

    @torch.no_grad()
    def _measure(self) -> HeldOut:
        # The same draws each time: two measurements differ by what was learned in between.
        figures = measure(self.model, self.held_out, generator=generator_for("watched"))
        image = self.held_out.batch(torch.arange(SHOWN)).to(self.options.device)
        panel = windows_panel(image, self.model.infer(image)).cpu()
        path = self.options.out / PANELS / f"{self.step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = panel.clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path)
        row = {
            "count_accuracy": figures["count_accuracy"],
            "bound": figures["elbo"],
            "cpu_seconds": round(self._spent(), 1),
        }
        return HeldOut(row, panel, "image_above_reconstruction")

    def _spent(self) -> float:
        return self.cpu_seconds + time.process_time() - self._began

    def _progress(self) -> dict[str, Any]:
        return {"cpu_seconds": self._spent()}

    def _origin(self) -> dict[str, Any]:
        return {"cpu_seconds": round(self._spent(), 1), "threads": torch.get_num_threads()}

    def _save_checkpoint(self, training: dict[str, Any]) -> None:
        save_checkpoint2d(
            self.options.out, self.model, name=self.experiment.name, training=training
        )

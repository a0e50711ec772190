"""A run of AIR with a learned decoder: it learns what images are made of from nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from inference.air2d import Air2d
from inference.checkpoint2d import save_checkpoint2d
from inference.enumerated import enumerated_bound
from inference.estimators import ESTIMATORS, Baseline, bound_loss
from training.image_run import ImageRun
from training.objectives import Losses
from training.panels import windows_panel
from training.picture_evaluation import watch
from training.picture_experiments import PictureExperiment
from training.run import RunOptions


class PictureRun(ImageRun):
    """One run of AIR on images; see `ImageRun`.

    Args:
        experiment: what to learn.
        options: how, on this machine.
    """

    def __init__(self, experiment: PictureExperiment, options: RunOptions) -> None:
        self.experiment = experiment
        super().__init__(experiment, options)

    def _networks(self) -> nn.ModuleDict:
        self.model = Air2d(self.experiment.network)
        parts: dict[str, nn.Module] = {"posterior": self.model}
        self.baseline: Baseline | None = None
        if self.experiment.estimator == "nvil":
            self.baseline = Baseline(self.experiment.network.hidden)
            parts["baseline"] = self.baseline
        return nn.ModuleDict(parts)

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

    def _figures(self, generator: torch.Generator) -> dict[str, Any]:
        return watch(self.model, self.experiment.data, self.held_out, generator=generator)

    def _random_count(self) -> float:
        """In which share of cases the count is told at random now."""
        e = self.experiment
        return e.random_count * max(0.0, 1 - self._part() / e.random_count_until)

    def _scalars(self) -> dict[str, float]:
        return {**super()._scalars(), "random_count": self._random_count()}

    def _panel(self, image: Tensor) -> Tensor:
        return windows_panel(image, self.model.infer(image))

    def _save_checkpoint(self, training: dict[str, Any]) -> None:
        save_checkpoint2d(
            self.options.out, self.model, name=self.experiment.name, training=training
        )

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
            return enumerated_loss(model, batch, e, part=self._part(), generator=generator)
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

    def _scalars(self) -> dict[str, float]:
        return {
            **super()._scalars(),
            "random_count": self.experiment.random_count_at(self._part()),
        }

    def _panel(self, image: Tensor) -> Tensor:
        return windows_panel(image, self.model.infer(image))

    def _save_checkpoint(self, training: dict[str, Any]) -> None:
        save_checkpoint2d(
            self.options.out, self.model, name=self.experiment.name, training=training
        )


def enumerated_loss(
    model: Air2d,
    image: Tensor,
    experiment: PictureExperiment,
    *,
    part: float,
    generator: torch.Generator | None = None,
) -> Losses:
    """What a step minimises where the count is summed out: the bound, and how learning begins.

    Args:
        model: that learns.
        image: `[B, channels, side, side]` in [0, 1].
        experiment: how many draws an image, and what fades while it runs.
        part: how much of the run is done, in [0, 1].
        generator: of random numbers.
    """
    rows = torch.arange(len(image), device=image.device).repeat_interleave(experiment.samples)
    weight = experiment.code_weight_at(part)
    found = enumerated_bound(
        model,
        model.encode(image).select(rows),
        code_weight=weight,
        toll=(1 - weight) * experiment.toll,
        generator=generator,
    )
    loss = -found.mixed(
        experiment.random_count_at(part), temperature=experiment.count_temperature_at(part)
    ).mean()
    return Losses(loss, {"bound": found.bound.mean()})

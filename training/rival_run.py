"""A run of a model that AIR is held against, on the same images and in the same loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from inference.checkpoint_rival import save_rival
from inference.rivals import build_rival
from training.image_run import ImageRun
from training.objectives import Losses
from training.panels import images_panel
from training.rival_evaluation import measure_rival
from training.rival_experiments import RivalExperiment
from training.run import RunOptions


class RivalRun(ImageRun):
    """One run of a rival; see `ImageRun`.

    Args:
        experiment: what to learn.
        options: how, on this machine.
    """

    def __init__(self, experiment: RivalExperiment, options: RunOptions) -> None:
        self.experiment = experiment
        super().__init__(experiment, options)

    def _networks(self) -> nn.ModuleDict:
        self.model = build_rival(self.experiment.network)
        return nn.ModuleDict({"posterior": self.model})

    def _losses(self, batch: Tensor, generator: torch.Generator) -> Losses:
        bound = self.model.bound(
            batch, code_weight=self.images.code_weight_at(self._part()), generator=generator
        ).mean()
        return Losses(-bound, {"bound": bound})

    def _figures(self, generator: torch.Generator) -> dict[str, Any]:
        found = measure_rival(self.model, self.held_out, generator=generator)
        return {"bound": found["elbo"], "reconstruction_error": found["reconstruction_error"]}

    def _panel(self, image: Tensor) -> Tensor:
        return images_panel(image, self.model.reconstruct(image))

    def _save_checkpoint(self, training: dict[str, Any]) -> None:
        save_rival(self.options.out, self.model, name=self.experiment.name, training=training)

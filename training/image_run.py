"""What runs on images have in common, whatever model is to learn what they are made of."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.dreams import generator_for
from training.panels import save_panel
from training.picture_experiments import ImageExperiment
from training.pictures import load_pictures
from training.run import HeldOut, Run, RunOptions

HELD_OUT = 1_000  # images of other digits, watched while training
SHOWN = 10  # of them in a panel
PANELS = Path("training") / "panels"


class ImageRun(Run[Tensor]):
    """One run of an experiment of images; a kind of it makes its networks and says what they lose.

    Args:
        experiment: what to learn.
        options: how, on this machine.

    Raises:
        ValueError: an option that images have no use for.
        StateError: the folder holds a run of another experiment, seed or code.
        DataError: the images cannot be made.
    """

    def __init__(self, experiment: ImageExperiment, options: RunOptions) -> None:
        if options.start is not None or options.images is not None:
            raise ValueError(
                f"--start and --images are for scenes of a renderer; {experiment.name} begins "
                "with nothing and brings its own images"
            )
        if options.team.together:
            raise ValueError(
                f"{experiment.name} learns in minutes, in one process; start it without torchrun"
            )
        super().__init__(experiment, options)
        self.images = experiment
        torch.manual_seed(int(generator_for(options.seed, "weights").initial_seed()))
        networks = self._networks()
        self.cpu_seconds = 0.0  # of all sessions before this one
        if self.resumes:
            self.cpu_seconds = self._read_progress()["cpu_seconds"]
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self._learn(networks)
        self.pictures = load_pictures(experiment.data, "train")
        watched = experiment.data.model_copy(update={"images": HELD_OUT})
        self.held_out = load_pictures(watched, "test")
        self._began = time.process_time()

    @abstractmethod
    def _networks(self) -> nn.ModuleDict:
        """Makes what learns."""

    @abstractmethod
    def _figures(self, generator: torch.Generator) -> dict[str, Any]:
        """How well the held-out images are read."""

    @abstractmethod
    def _panel(self, image: Tensor) -> Tensor:
        """Images `[B, channels, side, side]` above what is made of them: `[3, h, w]`."""

    def batches(self, first: int, last: int) -> Generator[Tensor, None, None]:
        """See `Run.batches`."""
        n, options = len(self.pictures.image), self.options
        for number in range(first, last):
            generator = generator_for(options.seed, "batch", number)
            rows = torch.randint(n, (self.images.batch,), generator=generator)
            yield self.pictures.batch(rows).to(options.device)

    def _scalars(self) -> dict[str, float]:
        return {"code_weight": self.images.code_weight_at(self._part())}

    @torch.no_grad()
    def _measure(self) -> HeldOut:
        # The same draws each time: two measurements differ by what was learned in between.
        figures = self._figures(generator_for("watched"))
        panel = self._panel(self.held_out.batch(torch.arange(SHOWN)).to(self.options.device)).cpu()
        path = self.options.out / PANELS / f"{self.step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_panel(panel, path)
        row = {**figures, "cpu_seconds": round(self._spent(), 1)}
        return HeldOut(row, panel, "image_above_reconstruction")

    def _spent(self) -> float:
        return self.cpu_seconds + time.process_time() - self._began

    def _progress(self) -> dict[str, Any]:
        return {"cpu_seconds": self._spent()}

    def _origin(self) -> dict[str, Any]:
        return {"cpu_seconds": round(self._spent(), 1), "threads": torch.get_num_threads()}

"""What a training step costs, and how that grows with objects, classes and resolution."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from benchmarks.catalogue import Catalogue
from benchmarks.part import Figures, Settings
from benchmarks.table import Table, digits
from benchmarks.timing import Timing, ratio, take_turns
from inference.posterior import Posterior, PosteriorConfig
from inference.wakesleep import sleep_loss
from renderer.backend import Renderer, open_renderer
from renderer.nuisance import photograph
from renderer.prior import sample
from training.run import bfloat16_pays


class Case(NamedTuple):
    """One world and network input."""

    classes: int
    objects: int
    size: int  # px

    @property
    def name(self) -> str:
        return f"{self.classes} classes, up to {self.objects} objects, {self.size} px"


@dataclass(frozen=True)
class Step:
    """One step of the sleep phase: what the network takes, and what drawing its batch takes."""

    classes: tuple[int, ...] = (3, 10)
    """Numbers of classes; the first one with the first of the others is what all is compared to."""
    objects: tuple[int, ...] = (3, 4, 6)
    """Greatest numbers of objects on the table."""
    sizes: tuple[int, ...] = (128, 64, 192)
    """Heights of the pictures in pixels."""
    batch: int = 64
    """Scenes a step."""
    supersample: int = 2
    """Samples a pixel along each axis."""
    backend: str = "auto"
    """That draws."""

    def cases(self) -> list[Case]:
        """Classes with objects at the first size, and the first of both at the others."""
        worlds = [
            Case(classes, objects, self.sizes[0])
            for classes in self.classes
            for objects in self.objects
        ]
        return worlds + [Case(self.classes[0], self.objects[0], size) for size in self.sizes[1:]]

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """One row for each case, in processor time: other programs make it longer only a little."""
        if not (self.classes and self.objects and self.sizes) or self.batch < 1:
            raise ValueError("step: give at least one of classes, objects and sizes, and a batch")
        learn: dict[str, Callable[[], object]] = {}
        draw: dict[str, Callable[[], object]] = {}
        renderers: list[Renderer] = []
        for case in self.cases():
            say(case.name)
            learner = Learner(case, self.batch, settings.seed)
            renderer = open_renderer(
                learner.posterior.spec,
                height=case.size,
                width=case.size,
                supersample=self.supersample,
                backend=self.backend,
            )
            renderers.append(renderer)
            learn[case.name] = learner.step
            draw[case.name] = partial(_draw, renderer, self.batch, settings.seed)
        turns = partial(take_turns, patience=4 * settings.patience, clock=time.process_time)
        learned, drawn = turns(learn, settings.rounds), turns(draw, settings.rounds)
        backends = [renderer.name for renderer in renderers]
        for renderer in renderers:
            renderer.close()
        first = self.cases()[0].name
        rows = [
            _row(case, backend, learned, drawn, first)
            for case, backend in zip(self.cases(), backends, strict=True)
        ]
        return Figures(rows)

    def tables(self, figures: Figures) -> dict[str, Table]:
        """The figures for people."""
        header = ("classes", "objects", "px", "network, s", "drawing, s", "network", "both")
        return {
            "step": Table(
                f"Processor time of a step of {self.batch} scenes, and how many times that of the "
                "first line",
                header,
                tuple(
                    (
                        str(row["classes"]),
                        str(row["objects"]),
                        str(row["size"]),
                        digits(row["network_seconds"]["median"]),
                        digits(row["drawing_seconds"]["median"]),
                        digits(row["network_ratio"]),
                        digits(row["ratio"]),
                    )
                    for row in figures.rows
                ),
                labels=3,
                note="Medians of rounds in turns.",
            )
        }


class Learner:
    """A network that learns from one batch, again and again."""

    def __init__(self, case: Case, batch: int, seed: int) -> None:
        torch.manual_seed(seed)
        spec = Catalogue(case.classes, case.objects).spec()
        config = PosteriorConfig(height=case.size, width=case.size)
        self.posterior = Posterior(spec, config)
        self.optimizer = torch.optim.AdamW(self.posterior.parameters(), lr=1e-3, fused=True)
        self.generator = torch.Generator().manual_seed(seed)
        self.scene = sample(spec, batch, generator=self.generator)
        # What a picture shows does not change what it costs to learn from.
        self.image = torch.rand(batch, 3, case.size, case.size, generator=self.generator)

    def step(self) -> None:
        """Forward, back, and the weights."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16_pays()):
            found = sleep_loss(
                self.posterior, self.image, self.scene, tolerance=0.03, generator=self.generator
            )
        self.optimizer.zero_grad(set_to_none=True)
        found.loss.backward()
        self.optimizer.step()


def _draw(renderer: Renderer, batch: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    photograph(renderer, sample(renderer.spec, batch, generator=generator), generator=generator)


def _row(
    case: Case, backend: str, learned: dict[str, Timing], drawn: dict[str, Timing], first: str
) -> dict[str, Any]:
    network, drawing = learned[case.name], drawn[case.name]
    both = network.median + drawing.median
    return {
        **case._asdict(),
        "backend": backend,
        "network_seconds": network.record(),
        "drawing_seconds": drawing.record(),
        "network_ratio": ratio(network, learned[first]),
        "ratio": both / (learned[first].median + drawn[first].median),
    }

"""How renders and gradients grow with the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.contenders import OURS, Contender, form_of, opened
from benchmarks.crowds import Crowd
from benchmarks.derivative import gradient_of_noise
from benchmarks.laws import Line
from benchmarks.part import Figures, Settings
from benchmarks.table import Table, digits, spread
from benchmarks.timing import Timing, ratio, take_turns
from renderer.differences import Scheme
from renderer.prior import sample


@dataclass(frozen=True)
class Growth:
    """Renders and gradients of batches of several sizes."""

    batches: tuple[int, ...] = (1, 4, 16, 64, 256)
    """Scenes in a batch."""
    card_batches: tuple[int, ...] = (1, 16, 256, 4096)
    """The same on a graphics card."""
    objects: int = 3
    """Of the tabletop's, in every scene alike."""
    size: int = 64
    """Height of the pictures in pixels."""
    supersample: int = 2
    """Samples a pixel along each axis."""
    scheme: Scheme = "forward"
    """Finite-difference scheme of the gradients to position and yaw."""

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """One row for each contender and batch, and for each contender what a batch costs."""
        if min((self.objects, *self.batches, *self.card_batches), default=1) < 1:
            raise ValueError("growth: batches and objects must be at least 1")
        spec = Crowd(self.objects).spec()
        figures = Figures()
        form = form_of(spec, self.size, self.supersample)
        with opened(OURS, spec, form, figures.skipped) as renderers:
            for batch in sorted({*self.batches, *self.card_batches}):
                say(f"{batch} scenes")
                here = {
                    one: renderer
                    for one, renderer in renderers.items()
                    if batch in (self.batches if one.device == "cpu" else self.card_batches)
                }
                figures.rows.extend(self._compare(here, batch, settings))
        figures.laws.extend(growth_with_batch(figures.rows))
        return figures

    def _compare(
        self, renderers: dict[Contender, Any], batch: int, settings: Settings
    ) -> list[dict[str, Any]]:
        work: dict[str, Callable[[], object]] = {}
        for one, renderer in renderers.items():
            generator = torch.Generator().manual_seed(settings.seed)
            scene = sample(renderer.spec, batch, generator=generator).to(one.device)
            take = gradient_of_noise(
                renderer, scene, scheme=self.scheme, azimuth=False, seed=settings.seed
            )
            work[f"{one.name}: render"] = partial(one.finish, partial(renderer.render, scene))
            work[f"{one.name}: gradient"] = partial(one.finish, take)
        timings = take_turns(work, settings.rounds_of(batch), patience=settings.patience)
        return [
            _row(one, batch, timings[f"{one.name}: render"], timings[f"{one.name}: gradient"])
            for one in renderers
        ]

    def tables(self, figures: Figures) -> dict[str, Table]:
        """The figures for people: measured, and as straight lines."""
        described = (
            f"{self.size} px, {self.supersample}×{self.supersample} samples, {self.objects} objects"
        )
        rows = sorted(figures.rows, key=lambda row: (row["contender"], row["scenes"]))
        return {
            "growth": Table(
                f"Growth with the batch: {described}",
                ("contender", "scenes", "images/s: median (min–max)", "gradient, renders"),
                tuple(
                    (
                        row["contender"],
                        str(row["scenes"]),
                        spread(row["images_per_second"]),
                        digits(row["price"]),
                    )
                    for row in rows
                ),
                labels=1,
                note=f"Gradient: `{self.scheme}` differences to position and yaw, with the render.",
            ),
            "growth-laws": Table(
                f"What a batch costs: {described}",
                ("contender", "of", "once, ms", "each scene, ms", "farthest from the line"),
                tuple(
                    (
                        law["contender"],
                        law["of"],
                        digits(1e3 * law["once"]),
                        digits(1e3 * law["each"]),
                        f"{100 * law['error']:.0f} %",
                    )
                    for law in figures.laws
                ),
                labels=2,
            ),
        }


def _row(one: Contender, batch: int, render: Timing, gradient: Timing) -> dict[str, Any]:
    return {
        "contender": one.name,
        "scenes": batch,
        "render_seconds": render.record(),
        "images_per_second": render.rate(batch),
        "gradient_seconds": gradient.record(),
        "price": ratio(gradient, render),
    }


def growth_with_batch(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines through the seconds of a batch, for renders and for gradients of each contender."""
    series: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        for what in ("render", "gradient"):
            point = (row["scenes"], row[f"{what}_seconds"]["median"])
            series.setdefault((row["contender"], what), []).append(point)
    return [
        {
            "contender": contender,
            "of": what,
            "unit": "seconds per scene",
            **Line.through(*zip(*points, strict=True)).record(),
        }
        for (contender, what), points in series.items()
        if len(points) > 1
    ]

"""Images per second of each backend, against a plain loop over `mujoco.Renderer`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.contenders import EVERYONE, PLAIN_LOOP, form_of, opened
from benchmarks.part import Figures, Settings
from benchmarks.table import Table, digits, spread
from benchmarks.timing import take_turns
from renderer import SceneSpec
from renderer.prior import sample


@dataclass(frozen=True)
class Forward:
    """Forward renders of scenes drawn from the prior, as bytes on the CPU."""

    spec: str = "tabletop"
    """A SceneSpec's YAML file, or the name of a built-in one."""
    sizes: tuple[int, ...] = (32, 64, 128)
    """Heights of the pictures in pixels."""
    supersamples: tuple[int, ...] = (1, 2)
    """Samples a pixel along each axis; the plain loop gets as many by OpenGL's anti-aliasing."""

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """One row for each size, supersampling and contender."""
        if min((*self.sizes, *self.supersamples), default=1) < 1:
            raise ValueError("forward: sizes and supersamples must be at least 1")
        spec = SceneSpec.load(self.spec)
        figures = Figures()
        for height in self.sizes:
            for supersample in self.supersamples:
                say(f"{height} px, {supersample}×{supersample} samples")
                self._compare(spec, height, supersample, settings, figures)
        return figures

    def _compare(
        self, spec: SceneSpec, height: int, supersample: int, settings: Settings, figures: Figures
    ) -> None:
        form = form_of(spec, height, supersample)
        with opened(EVERYONE, spec, form, figures.skipped) as renderers:
            work = {
                one.name: partial(
                    renderer.render_bytes,
                    sample(
                        spec,
                        settings.batch(one.device),
                        generator=torch.Generator().manual_seed(settings.seed),
                    ),
                )
                for one, renderer in renderers.items()
            }
            timings = take_turns(work, settings.rounds, patience=settings.patience)
        plain = None
        for one in renderers:
            timing, scenes = timings[one.name], settings.batch(one.device)
            rate = timing.rate(scenes)
            plain = rate["median"] if one == PLAIN_LOOP else plain
            figures.rows.append(
                {
                    "size": height,
                    "supersample": supersample,
                    "contender": one.name,
                    "scenes": scenes,
                    "seconds": timing.record(),
                    "images_per_second": rate,
                    "speedup": rate["median"] / plain if plain else None,
                }
            )

    def tables(self, figures: Figures) -> dict[str, Table]:
        """The figures for people."""
        return {
            "forward": Table(
                title=f"Forward renders of {self.spec}",
                columns=(
                    "px, samples",
                    "contender",
                    "images/s: median (min–max)",
                    f"× {PLAIN_LOOP.name}",
                ),
                rows=tuple(
                    (
                        f"{row['size']} px, {row['supersample']}×{row['supersample']}",
                        row["contender"],
                        spread(row["images_per_second"]),
                        "" if row["speedup"] is None else digits(row["speedup"]),
                    )
                    for row in figures.rows
                ),
                labels=2,
            )
        }

"""Images per second of each backend, against a plain loop over `mujoco.Renderer`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.table import Table

from benchmarks.part import Figures, Settings, close, spread
from benchmarks.plain_loop import PlainLoop
from benchmarks.timing import ratio, take_turns
from renderer import BackendError, SceneSpec, open_renderer
from renderer.backend import BACKENDS
from renderer.prior import sample

PLAIN_LOOP = "mujoco.Renderer"


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
        generator = torch.Generator().manual_seed(settings.seed)
        scene = sample(spec, settings.scenes, generator=generator)
        figures = Figures([])
        for height in self.sizes:
            for supersample in self.supersamples:
                say(f"{height} px, {supersample}×{supersample} samples")
                contenders = _open_all(spec, height, supersample, figures.skipped)
                timings = take_turns(
                    {
                        name: partial(renderer.render_bytes, scene)
                        for name, renderer in contenders.items()
                    },
                    settings.rounds,
                )
                close(*contenders.values())
                plain = timings.get(PLAIN_LOOP)
                figures.rows.extend(
                    {
                        "size": height,
                        "supersample": supersample,
                        "contender": name,
                        "seconds": timing.record(),
                        "images_per_second": timing.rate(settings.scenes),
                        "speedup": ratio(plain, timing) if plain else None,
                    }
                    for name, timing in timings.items()
                )
        return figures

    def table(self, figures: Figures) -> Table:
        """The figures for people."""
        table = Table(title=f"Forward renders of {self.spec}")
        table.add_column("px")
        table.add_column("samples")
        table.add_column("contender")
        table.add_column("images/s: median (min–max)", justify="right")
        table.add_column(f"× {PLAIN_LOOP}", justify="right")
        before = None
        for row in figures.rows:
            group = (row["size"], row["supersample"])
            if before not in (None, group):
                table.add_section()
            before = group
            table.add_row(
                str(row["size"]),
                f"{row['supersample']}×{row['supersample']}",
                row["contender"],
                spread(row["images_per_second"]),
                "" if row["speedup"] is None else f"{row['speedup']:.2f}",
            )
        return table


def _open_all(
    spec: SceneSpec, height: int, supersample: int, skipped: dict[str, str]
) -> dict[str, Any]:
    """Every contender that this machine has; why not, of the others, goes to `skipped`."""
    width = round(height * spec.camera.aspect)
    ways: dict[str, Callable[[], Any]] = {
        PLAIN_LOOP: partial(
            PlainLoop, spec, height=height, width=width, samples=supersample * supersample
        )
    }
    for backend in BACKENDS:
        ways[backend] = partial(
            open_renderer,
            spec,
            height=height,
            width=width,
            backend=backend,
            supersample=supersample,
        )
    contenders = {}
    for name, way in ways.items():
        try:
            contenders[name] = way()
        except BackendError as error:
            skipped[name] = str(error)
    return contenders

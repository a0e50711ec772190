"""What one finite-difference gradient costs, in forward renders of the same batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.part import Figures, Settings, close, spread
from benchmarks.timing import ratio, take_turns
from renderer import BackendError, Renderer, Scene, SceneSpec, differentiable_render, open_renderer
from renderer.backend import BACKENDS
from renderer.differences import Scheme, Steps, freedoms, plan
from renderer.prior import sample

# Crockery of this size, on this much of the table: eight pieces still find room.
SCALE = 0.6
EXTENT = 0.45  # m


@dataclass(frozen=True)
class Gradient:
    """Gradients to position and yaw of every object, with and without the camera's azimuth."""

    objects: tuple[int, ...] = (1, 2, 3, 5, 8)
    """How many stand on the table, in every scene alike."""
    size: int = 64
    """Height of the pictures in pixels."""
    supersample: int = 2
    """Samples a pixel along each axis."""
    schemes: tuple[Scheme, ...] = ("central", "forward")
    """Finite-difference schemes."""

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """One row for each backend, number of objects, scheme, and azimuth or not."""
        figures = Figures([])
        for count in self.objects:
            say(f"a table with room for {count}")
            spec = crowded(count)
            generator = torch.Generator().manual_seed(settings.seed)
            scene = sample(spec, settings.scenes, generator=generator)
            width = round(self.size * spec.camera.aspect)
            upstream = torch.randn(settings.scenes, 3, self.size, width, generator=generator)
            for backend in BACKENDS:
                try:
                    renderer = open_renderer(
                        spec,
                        height=self.size,
                        width=width,
                        backend=backend,
                        supersample=self.supersample,
                    )
                except BackendError as error:
                    figures.skipped[backend] = str(error)
                    continue
                say(f"{backend}, {count} objects")
                figures.rows.extend(self._compare(renderer, scene, upstream, settings.rounds))
                close(renderer)
        return figures

    def _compare(
        self, renderer: Renderer, scene: Scene, upstream: Tensor, rounds: int
    ) -> list[dict[str, Any]]:
        """The ways to the gradient of one batch, in turns with a render of the batch."""
        cases: dict[str, tuple[Scheme, bool]] = {
            f"{scheme}, azimuth {azimuth}": (scheme, azimuth)
            for scheme in self.schemes
            for azimuth in (False, True)
        }
        contenders: dict[str, Callable[[], object]] = {"render": partial(renderer.render, scene)}
        for name, (scheme, azimuth) in cases.items():
            contenders[name] = partial(
                gradient, renderer, scene, upstream, scheme=scheme, azimuth=azimuth
            )
        timings = take_turns(contenders, rounds)
        render = timings["render"]
        return [
            {
                "backend": renderer.name,
                "objects": scene.slots,
                "azimuth": azimuth,
                "scheme": scheme,
                "moved_scenes": _moved(renderer, scene, scheme, azimuth),
                "seconds": timings[name].record(),
                "render_seconds": render.record(),
                "price": ratio(timings[name], render),
            }
            for name, (scheme, azimuth) in cases.items()
        ]

    def table(self, figures: Figures) -> Table:
        """The figures for people."""
        table = Table(
            title=f"One gradient, {self.size} px, {self.supersample}×{self.supersample} samples",
            caption="moved: scenes drawn beside each one for its gradient, on average",
        )
        table.add_column("backend")
        table.add_column("objects")
        table.add_column("gradient")
        table.add_column("moved", justify="right")
        table.add_column("ms: median (min–max)", justify="right")
        table.add_column("renders", justify="right")
        before = None
        for row in figures.rows:
            group = (row["backend"], str(row["objects"]))
            if before != group:
                table.add_section()
                table.add_row(*group, "none", "", spread(row["render_seconds"], 1e3), "1")
            before = group
            table.add_row(
                *group,
                row["scheme"] + (" + azimuth" if row["azimuth"] else ""),
                f"{row['moved_scenes']:.1f}",
                spread(row["seconds"], 1e3),
                f"{row['price']:.1f}",
            )
        return table


def crowded(count: int) -> SceneSpec:
    """The tabletop with smaller crockery, always exactly `count` pieces of it.

    The same crockery for every count, so that they differ by the count alone; and a spec of its own
    for each, because empty slots are not free in every backend.
    """
    data = SceneSpec.load("tabletop").model_dump(mode="json", exclude_defaults=True)
    data["name"] = f"tabletop-{count}"
    data["objects"] = [{**item, "scale": SCALE} for item in data["objects"]]
    data["count"] = {"max": count, "probabilities": [0.0] * count + [1.0]}
    data["placement"]["extent"] = [EXTENT, EXTENT]
    return SceneSpec.build(data, source="gradient benchmark")


def gradient(
    renderer: Renderer, scene: Scene, upstream: Tensor, *, scheme: Scheme, azimuth: bool
) -> tuple[Tensor, ...]:
    """Renders and goes back once: gradients to position `[B, K, 2]`, yaw `[B, K]`, azimuth `[B]`.

    Args:
        renderer: draws the scenes.
        scene: B scenes with K slots.
        upstream: `[B, 3, H, W]`, gradient of some loss to the pictures.
        scheme: of the finite differences.
        azimuth: whether the camera's azimuth gets a gradient; the last one is left out if not.
    """
    leaves = [scene.position, scene.yaw, *([scene.azimuth] if azimuth else [])]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    names = ("position", "yaw", "azimuth")[: len(leaves)]
    free = replace(scene, **dict(zip(names, leaves, strict=True)))
    picture = differentiable_render(renderer, free, scheme=scheme)
    return torch.autograd.grad(picture, leaves, upstream)


def _moved(renderer: Renderer, scene: Scene, scheme: Scheme, azimuth: bool) -> float:
    """Moved scenes in the plan of a gradient, for each scene of the batch."""
    free = freedoms(scene, renderer.spec.symmetry_orders, azimuth=azimuth)
    steps = Steps.for_size(renderer.spec, renderer.height)
    return len(plan(free, steps, scheme)) / len(scene)

"""What one finite-difference gradient costs, in forward renders of the same batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch

from benchmarks.contenders import ALONE, CARD, TOGETHER, Contender, form_of, opened
from benchmarks.crowds import Crowd
from benchmarks.derivative import Way, gradient_of_noise, moved_scenes, ways
from benchmarks.laws import Line
from benchmarks.part import Figures, Settings
from benchmarks.table import Table, digits, spread
from benchmarks.timing import ratio, take_turns
from renderer.differences import Scheme
from renderer.prior import sample
from renderer.scene import Scene

WAYS: tuple[Way, ...] = ("windows", "pictures")


@dataclass(frozen=True)
class Gradient:
    """Gradients to position and yaw of every object, with and without the camera's azimuth."""

    objects: tuple[int, ...] = (1, 2, 3)
    """How many of the tabletop's objects stand on it, in every scene alike."""
    small_objects: tuple[int, ...] = (3, 5, 8)
    """The same for objects of 0.6 times the size, of which more find room."""
    shared: tuple[int, ...] = (3,)
    """Of these, the numbers for which all cores are measured too; workers take long to start."""
    scenes: int = 64
    """In a batch on the CPU."""
    whole_scenes: int = 16
    """The same where whole pictures are drawn, which takes many times as long."""
    size: int = 64
    """Height of the pictures in pixels."""
    supersample: int = 2
    """Samples a pixel along each axis."""
    schemes: tuple[Scheme, ...] = ("forward", "central")
    """Finite-difference schemes."""

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """One row for each number of objects, contender, scheme, azimuth or not, and way."""
        if (
            min(
                (
                    self.scenes,
                    self.whole_scenes,
                    self.size,
                    self.supersample,
                    *self.objects,
                    *self.small_objects,
                )
            )
            < 1
        ):
            raise ValueError("gradient: scenes, size, supersample and objects must be at least 1")
        figures = Figures()
        crowds = [Crowd(n) for n in self.objects] + [Crowd(n, True) for n in self.small_objects]
        for crowd in crowds:
            say(f"a table with room for {crowd.objects}")
            spec = crowd.spec()
            form = form_of(spec, self.size, self.supersample)
            together = TOGETHER if crowd.objects in self.shared else ()
            with opened((*ALONE, *together, CARD), spec, form, figures.skipped) as renderers:
                say(f"{crowd.objects} objects, scale {crowd.scale:g}")
                figures.rows.extend(self._compare(crowd, renderers, settings, figures.skipped))
        figures.laws.extend(growth_with_objects(figures.rows))
        return figures

    def _compare(
        self,
        crowd: Crowd,
        renderers: dict[Contender, Any],
        settings: Settings,
        skipped: dict[str, str],
    ) -> list[dict[str, Any]]:
        """All ways of all contenders to the gradient of one batch, in turns with its render."""
        work: dict[str, Callable[[], object]] = {}
        rows: dict[str, dict[str, Any]] = {}
        for one, renderer in renderers.items():
            here = ways(renderer)
            scenes: dict[Way, Scene] = {}
            for way in here:
                count = self.scenes if way == "windows" else self.whole_scenes
                count = settings.batch(one.device, count)
                generator = torch.Generator().manual_seed(settings.seed)
                scenes[way] = sample(renderer.spec, count, generator=generator).to(one.device)
                draw = partial(renderer.render, scenes[way])
                work[_render_of(one.name, way)] = partial(one.finish, draw)
            if "windows" not in here:
                skipped[f"{one.name}, windows"] = "draws whole pictures only"
            for (way, view), scheme, azimuth in product(here.items(), self.schemes, (False, True)):
                name = f"{one.name}: {scheme}, azimuth {azimuth}, {way}"
                options: dict[str, Any] = {"scheme": scheme, "azimuth": azimuth}
                scene = scenes[way]
                take = gradient_of_noise(view, scene, seed=settings.seed, **options)
                work[name] = partial(one.finish, take)
                rows[name] = {
                    **crowd.record(),
                    "contender": one.name,
                    **options,
                    "way": way,
                    "scenes": len(scene),
                    "moved_scenes": moved_scenes(renderer, scene, **options),
                }
        timings = take_turns(work, settings.rounds, patience=settings.patience)
        for name, row in rows.items():
            render = timings[_render_of(row["contender"], row["way"])]
            row["seconds"], row["render_seconds"] = timings[name].record(), render.record()
            row["price"] = ratio(timings[name], render)
        return list(rows.values())

    def tables(self, figures: Figures) -> dict[str, Table]:
        """The figures for people: prices by windows and by whole pictures, and how they grow."""
        cases = list(product(self.schemes, (False, True)))
        names = [scheme + (" + azimuth" if azimuth else "") for scheme, azimuth in cases]
        described = (
            f"{self.size} px, {self.supersample}×{self.supersample} samples, {self.scenes} scenes "
            f"by windows, {self.whole_scenes} by whole pictures"
        )
        groups = {(row["contender"], -row["scale"], row["objects"]) for row in figures.rows}
        prices = []
        for contender, minus_scale, objects in sorted(groups):
            scale = -minus_scale
            rows = [
                row
                for row in figures.rows
                if (row["contender"], row["objects"], row["scale"]) == (contender, objects, scale)
            ]
            cells = [_both(rows, "price", case) for case in cases]
            crowd = (contender, _objects(objects, scale))
            prices.append((*crowd, spread(rows[0]["render_seconds"], 1e3), *cells))
        laws = []
        for contender, scale in dict.fromkeys((r["contender"], r["scale"]) for r in figures.laws):
            mine = [r for r in figures.laws if (r["contender"], r["scale"]) == (contender, scale)]
            cells = [_both(mine, "each", case) for case in cases]
            worst = max(row["error"] for row in mine)
            laws.append((contender, f"×{scale:g}", *cells, f"{100 * worst:.0f} %"))
        return {
            "gradient": Table(
                f"Picture and gradient, in renders of the batch: {described}",
                ("contender", "objects", "one render, ms", *names),
                tuple(prices),
                labels=2,
                note="By windows / by whole pictures. ×0.6: crockery of that size, so that more "
                "fits on the table.",
            ),
            "gradient-laws": Table(
                f"Renders that one more object adds to the gradient: {described}",
                ("contender", "crockery", *names, "farthest from the line"),
                tuple(laws),
                labels=2,
                note="Slopes of straight lines through the prices, by windows / by whole pictures.",
            ),
        }


def _render_of(contender: str, way: Way) -> str:
    return f"{contender}: render for {way}"


def growth_with_objects(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines through the prices as the objects become more, one for each otherwise equal case."""
    keys = ("contender", "scale", "scheme", "azimuth", "way")
    cases: dict[tuple[Any, ...], list[tuple[int, float]]] = {}
    for row in rows:
        cases.setdefault(tuple(row[key] for key in keys), []).append((row["objects"], row["price"]))
    return [
        {
            **dict(zip(keys, case, strict=True)),
            "unit": "renders per object",
            **Line.through(*zip(*points, strict=True)).record(),
        }
        for case, points in cases.items()
        if len(dict(points)) > 1
    ]


def _both(rows: list[dict[str, Any]], key: str, case: tuple[Scheme, bool]) -> str:
    """`windows / pictures`; a dash for what was not measured."""
    found = {row["way"]: row[key] for row in rows if (row["scheme"], row["azimuth"]) == case}
    return " / ".join(digits(found[way]) if way in found else "–" for way in WAYS)


def _objects(count: int, scale: float) -> str:
    return str(count) if scale == 1 else f"{count}, ×{scale:g}"

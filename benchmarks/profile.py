"""Where the time of a picture and of a gradient goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from benchmarks.contenders import ALONE, Contender, form_of, opened
from benchmarks.crowds import Crowd
from benchmarks.part import Figures, Settings
from benchmarks.stages import (
    GRADIENT_STAGES,
    STAGES,
    WHOLE,
    experiments,
    gradient_parts,
    stages,
)
from benchmarks.table import Table, digits
from renderer import Renderer, Scene
from renderer.prior import sample


@dataclass(frozen=True)
class Profile:
    """The parts of a picture's time, and of a gradient's."""

    objects: int = 3
    """Of the tabletop's, in every scene alike."""
    size: int = 64
    """Height of the pictures in pixels."""
    supersamples: tuple[int, ...] = (1, 2)
    """Samples a pixel along each axis."""
    batches: tuple[int, ...] = (1, 64)
    """Scenes in a batch."""
    gradient_scenes: int = 16
    """Scenes in a batch whose gradient is taken."""

    def measure(self, settings: Settings, say: Callable[[str], None]) -> Figures:
        """One row for each backend, number of samples and batch; then one for each gradient."""
        counts = (self.objects, self.size, self.gradient_scenes)
        if min((*counts, *self.supersamples, *self.batches)) < 1:
            raise ValueError("profile: objects, size, samples and batches must be at least 1")
        figures = Figures()
        spec = Crowd(self.objects).spec()
        for supersample in self.supersamples:
            form = form_of(spec, self.size, supersample)
            pixel = form_of(spec, 1, supersample)
            with (
                opened(ALONE, spec, form, figures.skipped) as whole,
                opened(whole, spec, pixel, figures.skipped) as pixels,
            ):
                for one, batch in product(pixels, self.batches):
                    say(f"{one.name}, {supersample}×{supersample} samples, {batch} scenes")
                    scene = self._scenes(whole[one], batch, settings)
                    seconds = experiments(whole[one], pixels[one], scene, settings)
                    figures.rows.append(
                        {
                            "what": "picture",
                            **_case(one, supersample, batch),
                            "seconds": seconds[WHOLE, True, True],
                            "parts": stages(seconds),
                        }
                    )
                for one, renderer in whole.items():
                    say(f"{one.name}, {supersample}×{supersample} samples, gradient")
                    scene = self._scenes(renderer, self.gradient_scenes, settings)
                    figures.rows.append(
                        {
                            "what": "gradient",
                            **_case(one, supersample, self.gradient_scenes),
                            **gradient_parts(renderer, scene, settings),
                        }
                    )
        return figures

    def _scenes(self, renderer: Renderer, batch: int, settings: Settings) -> Scene:
        generator = torch.Generator().manual_seed(settings.seed)
        return sample(renderer.spec, batch, generator=generator)

    def tables(self, figures: Figures) -> dict[str, Table]:
        """The parts for people, in milliseconds and as shares."""
        pictures = [row for row in figures.rows if row["what"] == "picture"]
        gradients = [row for row in figures.rows if row["what"] == "gradient"]
        described = f"{self.size} px, {self.objects} objects"
        return {
            "profile": _parts_table(
                f"Where the time of a picture goes: {described}",
                pictures,
                STAGES,
                note="Milliseconds a scene, and shares. Each part is a difference between "
                "measurements; noise can make a small one negative.",
            ),
            "profile-gradient": _parts_table(
                f"Where the time of a gradient goes: {described}",
                gradients,
                GRADIENT_STAGES,
                note="`forward` differences to position and yaw, by windows. "
                + " ".join(dict.fromkeys(_windows(row) for row in gradients)),
            ),
            "limits": Table(
                f"What takes most of a picture's time: {described}",
                ("backend", "samples", "scenes", "most", "next"),
                tuple((*_labels(row), *_largest(row)) for row in _in_order(pictures)),
                labels=5,
            ),
        }


def _case(one: Contender, supersample: int, batch: int) -> dict[str, Any]:
    return {"contender": one.name, "supersample": supersample, "scenes": batch}


def _windows(row: dict[str, Any]) -> str:
    return (
        f"{digits(row['windows_per_scene'])} windows a scene, of {100 * row['window_area']:.0f} % "
        "of the picture on average."
    )


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["contender"], row["supersample"], row["scenes"]))


def _labels(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["contender"], f"{row['supersample']}×{row['supersample']}", str(row["scenes"])


def _largest(row: dict[str, Any], count: int = 2) -> list[str]:
    parts = sorted(row["parts"].items(), key=lambda part: -part[1])[:count]
    return [f"{STAGES[name]}, {100 * value / row['seconds']:.0f} %" for name, value in parts]


def _parts_table(
    title: str, rows: list[dict[str, Any]], parts: Mapping[str, str], note: str = ""
) -> Table:
    """A line for each case: all of its time, and of each part the time and the share."""

    def cell(row: dict[str, Any], part: str) -> str:
        value = row["parts"][part]
        return f"{digits(1e3 * value / row['scenes'])} ({100 * value / row['seconds']:.0f} %)"

    return Table(
        title,
        ("backend", "samples", "scenes", "all, ms a scene", *parts.values()),
        tuple(
            (
                *_labels(row),
                digits(1e3 * row["seconds"] / row["scenes"]),
                *(cell(row, part) for part in parts),
            )
            for row in _in_order(rows)
        ),
        labels=3,
        note=note,
    )

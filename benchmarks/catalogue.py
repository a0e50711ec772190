"""Worlds of any number of classes and objects, to see what a larger catalogue costs."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from benchmarks.crowds import SMALL, SMALL_EXTENT
from renderer import SceneSpec


@dataclass(frozen=True)
class Catalogue:
    """The tabletop's crockery in many colours, each a class of its own, small enough for many."""

    classes: int
    objects: int

    def spec(self) -> SceneSpec:
        """The world; every count up to `objects` is as probable."""
        tabletop = SceneSpec.load("tabletop")
        data = tabletop.model_dump(mode="json", exclude_defaults=True)
        data["name"] = f"catalogue-{self.classes}-{self.objects}"
        shapes = data["objects"]
        data["objects"] = [
            {
                **shapes[number % len(shapes)],
                "name": f"{shapes[number % len(shapes)]['name']}-{number}",
                "scale": SMALL,
                "colour": list(colorsys.hsv_to_rgb(number / self.classes, 0.7, 0.8)),
            }
            for number in range(self.classes)
        ]
        data["count"] = {"max": self.objects}
        data["placement"]["extent"] = [SMALL_EXTENT, SMALL_EXTENT]
        return SceneSpec.build(data, folder=tabletop.folder, source="benchmarks")

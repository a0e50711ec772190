"""Tables with a known number of objects on them, and the same number in every scene."""

from __future__ import annotations

from dataclasses import dataclass

from renderer import SceneSpec

SMALL = 0.6  # times the tabletop's crockery: of this size eight pieces find room
SMALL_EXTENT = 0.45  # m, of the table that they may stand on


@dataclass(frozen=True)
class Crowd:
    """How many stand on the table, in the tabletop's size or smaller."""

    objects: int
    small: bool = False

    @property
    def scale(self) -> float:
        """Of the crockery, in the tabletop's."""
        return SMALL if self.small else 1.0

    def spec(self) -> SceneSpec:
        """The tabletop with always exactly that many objects.

        A spec of its own for each number, because empty slots are not free in every backend.
        """
        data = SceneSpec.load("tabletop").model_dump(mode="json", exclude_defaults=True)
        data["name"] = f"tabletop-{self.objects}"
        data["count"] = {"max": self.objects, "probabilities": [0.0] * self.objects + [1.0]}
        if self.small:
            data["objects"] = [{**item, "scale": SMALL} for item in data["objects"]]
            data["placement"]["extent"] = [SMALL_EXTENT, SMALL_EXTENT]
        return SceneSpec.build(data, source="benchmarks")

    def record(self) -> dict[str, float]:
        """Plain data for JSON."""
        return {"objects": self.objects, "scale": self.scale}

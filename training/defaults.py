"""What a SceneSpec alone says of how to learn it: the network, and for how long.

The shipped tabletop (three classes, up to three objects, pictures of 128 x 128 px, 9,000 steps) is
where everything starts from; what a larger catalogue needs more of is counted from there. How the
cost of a step grows is measured by `python -m benchmarks --only step`, see docs/scaling.md.
"""

from __future__ import annotations

import math

from inference.encoder import COARSE_STRIDE
from inference.posterior import PosteriorConfig
from renderer.spec import SceneSpec

PIXELS = 128 * 128  # of the network's input, about
GREATEST = 2.25  # times as many, at most
LEAST_ACROSS = 8.0  # px that the smallest object should have from side to side
SHARPEST = 22.0  # a camera's angle can be told to a thousandth of a degree; see PosteriorConfig
MANY_CLASSES, MANY_OBJECTS = 6, 4  # more than these need a wider network
STEPS = 9_000  # of three classes and three objects
MORE_CLASSES, MORE_OBJECTS = 0.08, 0.15  # of STEPS, for each that there is more
ROUND = 500  # steps


def default_network(spec: SceneSpec) -> PosteriorConfig:
    """The network for a world: finer pictures for small objects, wider for a large catalogue."""
    height, width = input_size(spec.camera.aspect, pixels_for(spec))
    return PosteriorConfig(
        height=height,
        width=width,
        channels=64 if len(spec.objects) <= MANY_CLASSES else 80,
        hidden=128 if spec.count.max <= MANY_OBJECTS else 192,
        sharpest=SHARPEST,
    )


def default_steps(spec: SceneSpec) -> int:
    """Steps at most, if time allows: more for a larger catalogue and a fuller table."""
    more = MORE_CLASSES * max(0, len(spec.objects) - 3) + MORE_OBJECTS * max(0, spec.count.max - 3)
    return ROUND * round(STEPS * (1 + more) / ROUND)


def pixels_for(spec: SceneSpec) -> float:
    """Pixels of the network's input, in all, with which the smallest object can be made out."""
    across = pixels_across(spec, math.sqrt(PIXELS / spec.camera.aspect))
    return PIXELS * min(GREATEST, max(1.0, (LEAST_ACROSS / across) ** 2))


def pixels_across(spec: SceneSpec, height: float) -> float:
    """Pixels from side to side of the smallest object at the camera's target.

    Args:
        spec: the world.
        height: of the picture, px.
    """
    camera = spec.camera
    seen = 2 * camera.distance * math.tan(math.radians(camera.fovy_deg) / 2)  # m, from top to floor
    return 2 * min(geometry.radius for geometry in spec.geometries) * height / seen


def input_size(aspect: float, pixels: float = PIXELS) -> tuple[int, int]:
    """Height and width (px) for the network's input: near `aspect`, about `pixels` in all."""

    def misfit(size: tuple[int, int]) -> float:
        height, width = size
        area = abs(math.log(height * width / pixels))
        return 20 * abs(math.log(width / height / aspect)) + area

    sides = range(3 * COARSE_STRIDE, 33 * COARSE_STRIDE, COARSE_STRIDE)
    return min(((h, w) for h in sides for w in sides), key=misfit)

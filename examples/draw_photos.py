"""Draws the example photos: twelve tables, each with its truth as JSON beside it.

They come from the ray caster, while the shipped model was trained on OpenGL's pictures; half are
spoiled as a camera would: sensor noise, blur, exposure, JPEG artefacts.

    python examples/draw_photos.py
"""

from __future__ import annotations

from pathlib import Path

import torch

from renderer import Scene, SceneSpec, open_renderer
from renderer.nuisance import spoil
from renderer.prior import sample
from renderer.variation import Noise
from training.dreams import generator_for
from training.photos import to_image, write_truth

FOLDER = Path(__file__).parent / "photos"
SIZE = 640  # px
COUNTS = (0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3)  # objects on each table
CAMERA_NOISE = Noise(sensor_std=(0.01, 0.03), blur_px=(0.4, 1.2), gain=(0.9, 1.1))
QUALITIES = (90, 75, 60, 45, 30, 20)  # of the JPEG files


def main() -> None:
    spec = SceneSpec.load("tabletop")
    renderer = open_renderer(spec, height=SIZE, width=SIZE, backend="raycast", supersample=2)
    generator = generator_for("example photos")
    FOLDER.mkdir(exist_ok=True)
    qualities = iter(QUALITIES)
    for index, count in enumerate(COUNTS):
        scene = draw(spec, count, generator)
        pictures = renderer.render_bytes(scene)
        path = FOLDER / f"table-{index:02d}"
        if index % 2:
            image = to_image(spoil(pictures, CAMERA_NOISE, generator=generator)[0])
            image.save(path.with_suffix(".jpg"), quality=next(qualities))
        else:
            to_image(pictures[0]).save(path.with_suffix(".png"), optimize=True)
        write_truth(path.with_suffix(".json"), spec, scene)


def draw(spec: SceneSpec, count: int, generator: torch.Generator) -> Scene:
    """One scene of the prior with exactly `count` objects."""
    scenes = sample(spec, 200, generator=generator)
    return scenes[scenes.count == count][0]


if __name__ == "__main__":
    main()

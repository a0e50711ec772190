"""`python -m training preview`: a contact sheet of a SceneSpec's objects and scenes."""

from __future__ import annotations

import math
import textwrap
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from renderer.appearance import Appearance
from renderer.backend import open_renderer
from renderer.camera import project
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec
from training.dreams import generator_for
from training.photos import to_image
from training.sightings import Sightings

SIDES = 8
TILE = 132  # px, of an object from one side
NAMES = 190  # px, of the column with what objects are called
SCENE = 312  # px, height of a sampled scene
LINE = 18  # px, of text
ELEVATION = 30.0  # degrees, of the camera that goes round an object
AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
AXIS_COLOURS = ("#ff5040", "#50d050", "#60a0ff")  # x, y, z, as everywhere
INK, PAPER, FAINT = "#202124", "#ffffff", "#70757a"
ALERT = "#b00020"


def draw_preview(
    spec: SceneSpec, sightings: Sightings, out: Path, *, scenes: int, seed: int, backend: str
) -> None:
    """Writes a contact sheet: objects from eight sides with their axes, sampled scenes, warnings.

    Args:
        spec: the world.
        sightings: of its objects.
        out: a PNG or JPEG file.
        scenes: how many are drawn, with the spec's noise.
        seed: of the scenes.
        backend: that draws.
    """
    rows = _objects(spec, backend)
    pictures = _scenes(spec, scenes, seed, backend)
    wide = NAMES + SIDES * TILE + TILE
    per_row = max(1, wide // (round(SCENE * spec.camera.aspect) + 4))
    lines = [f"! {warning}" for warning in sightings.warnings] or ["nothing to warn of"]
    wrapped = [part for line in lines for part in textwrap.wrap(line, 150, subsequent_indent="  ")]
    scene_rows = -(-len(pictures) // per_row)
    high = LINE * (len(wrapped) + 6) + TILE * len(rows) + (SCENE + 4) * scene_rows
    sheet = Image.new("RGB", (wide, high), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    pen.text((6, 4), f"{spec.name}: the objects from eight sides, with their axes", INK, font)
    for index, colour in enumerate(AXIS_COLOURS):
        pen.text((380 + 20 * index, 4), "xyz"[index], colour, font)
    pen.text((wide - TILE - 2, 4), "as the network sees it", FAINT, font)
    top = LINE + 6
    for (views, item, geometry), sighting in zip(
        zip(rows, spec.objects, spec.geometries, strict=True), sightings.classes, strict=True
    ):
        sides = [
            100 * (high - low) for low, high in zip(geometry.lower, geometry.upper, strict=True)
        ]
        told = (
            item.name,
            " x ".join(f"{side:.3g}" for side in sides) + " cm",
            f"symmetry: {_symmetry(item.symmetry_order)}",
            f"{sighting.near} to {sighting.far} pixels",
        )
        for index, text in enumerate(told):
            pen.text((6, top + 28 + LINE * index), text, FAINT if index else INK, font)
        for index, view in enumerate(views):
            sheet.paste(view, (NAMES + index * TILE, top))
        seen = to_image(sighting.crop).resize((TILE, TILE), Image.Resampling.NEAREST)
        sheet.paste(seen, (NAMES + SIDES * TILE, top))
        top += TILE
    pen.text((6, top + 6), f"{len(pictures)} scenes, sampled; seed {seed}", INK, font)
    top += LINE + 10
    for index, picture in enumerate(pictures):
        row, column = divmod(index, per_row)
        sheet.paste(picture, (column * (picture.width + 4), top + row * (SCENE + 4)))
    top += (SCENE + 4) * scene_rows + 6
    colour = ALERT if sightings.warnings else FAINT
    for index, line in enumerate(wrapped):
        pen.text((6, top + LINE * index), line, colour, font)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out)


def _symmetry(order: int) -> str:
    return {0: "continuous", 1: "none"}.get(order, f"{order}-fold")


def _objects(spec: SceneSpec, backend: str) -> list[list[Image.Image]]:
    """Each class from eight sides."""
    heights = [geometry.height for geometry in spec.geometries]
    camera = spec.camera.model_copy(
        update={
            "target": (0.0, 0.0, sum(heights) / len(heights) / 2),
            "elevation_deg": ELEVATION,
            "fovy_deg": 30.0,
            "azimuth_deg": (-180.0, 180.0),
            "aspect": 1.0,
        }
    )
    close = SceneSpec.build(
        {
            **spec.model_dump(mode="json", exclude_defaults=True),
            "camera": camera.model_dump(mode="json"),
            "count": {"max": 1},
            "nuisance": {},
        },
        folder=spec.folder,
    )
    renderer = open_renderer(close, height=TILE, width=TILE, backend=backend, supersample=4)
    rows = []
    for c, geometry in enumerate(close.geometries):
        scene = Scene.empty(SIDES, 1)
        scene.presence[:], scene.identity[:] = True, c
        scene.azimuth[:] = torch.arange(SIDES) * (2 * math.pi / SIDES)
        size = math.hypot(geometry.radius, geometry.height / 2)
        distance = 1.25 * size / math.sin(math.radians(camera.fovy_deg) / 2)
        looks = replace(Appearance.neutral(close, SIDES), distance=torch.full((SIDES,), distance))
        pictures = renderer.render_bytes(scene, looks)
        seen = camera.model_copy(update={"distance": distance})
        length = 1.15 * max(geometry.radius, geometry.height)
        tips = length * torch.tensor([(0.0, 0.0, 0.0), *AXES])
        pixels = project(seen, scene.azimuth, tips.expand(SIDES, -1, -1), TILE, TILE)
        rows.append([_with_axes(*pair) for pair in zip(pictures, pixels, strict=True)])
    renderer.close()
    return rows


def _with_axes(picture: Tensor, tips: Tensor) -> Image.Image:
    """The picture with the axes drawn over it: from the origin `tips[0]` px to the others."""
    image = to_image(picture)
    pen = ImageDraw.Draw(image)
    origin, *ends = [tuple(tip) for tip in tips.tolist()]
    for end, colour in zip(ends, AXIS_COLOURS, strict=True):
        pen.line([origin, end], fill=colour, width=2)
    return image


def _scenes(spec: SceneSpec, scenes: int, seed: int, backend: str) -> list[Image.Image]:
    """Sampled scenes, the fullest first."""
    width = round(SCENE * spec.camera.aspect)
    renderer = open_renderer(spec, height=SCENE, width=width, backend=backend, supersample=2)
    scene = sample(spec, scenes, generator=generator_for("preview", seed))
    scene = scene[scene.count.argsort(descending=True, stable=True)]
    pictures = renderer.render_bytes(scene)
    renderer.close()
    return [to_image(picture) for picture in pictures]

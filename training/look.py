"""What a table looks like to a user's camera: the colours of its SceneSpec, fitted to photos.

The wake phase of wake-sleep (Hinton et al., 1995) teaches the generative model what the world looks
like, so that dreams come to resemble it. Ours has a renderer, of which shapes are known and colours
under this light are not. Given its scene, a photo is the product of each surface's colour and its
shading, and the colour follows; given the colours, the network sees a photo as it knows them, and
says the scene. A few rounds of both, beginning with the table, whose place is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from inference.build import AnyPosterior
from renderer.appearance import Appearance
from renderer.backend import Renderer
from renderer.fields import Colour
from renderer.scene import Scene
from renderer.spec import SceneSpec
from renderer.variation import ColourSpread, ColourSpreads, Light
from training.unlabelled import as_float

ROUNDS = 2
LOOKED_AT = 128  # photos, at most
CHUNK = 32  # photos a pass
GREY = 0.5  # of a surface whose shading is drawn: white could be brighter than a picture can show
LIT = 0.1  # shading below which a pixel says little of a colour
PURE = 0.97  # share of a pixel's shading that is of one surface: others are edges
FEWEST = 20  # pixels of a surface in a photo, to count
LEAST_PHOTOS = 3  # that a surface's colour is the median of
DARKEST = 0.02  # a colour that a photo may be scaled by

TABLE, BACKGROUND = -1, -2  # surfaces that are not a class of objects

# What a fit may have missed is dreamt of, less with each part of a run: objects that the network
# does not know in their true colour yet, and light from another side.
STAGES = (
    ColourSpread(hue_deg=40, saturation=0.35, value=0.4),
    ColourSpread(hue_deg=12, saturation=0.12, value=0.12),
    ColourSpread(hue_deg=6, saturation=0.06, value=0.06),
)
NEARLY = ColourSpread(hue_deg=5, saturation=0.05, value=0.05)  # of table and background
ELSEWHERE = Light(turn_deg=(0.0, 40.0), strength=(0.8, 1.2))


class Look(BaseModel):
    """What a world looks like on photos, as plain data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: Colour
    background: Colour
    objects: tuple[Colour, ...]  # of each class
    std: float  # grey levels of 1, of photos about their pictures
    stage: int  # of the run in which it was fitted

    @staticmethod
    def of(spec: SceneSpec, *, std: float, stage: int) -> Look:
        """That of a spec."""
        objects = tuple(item.colour for item in spec.objects)
        return Look(
            table=spec.table.colour,
            background=spec.background,
            objects=objects,
            std=std,
            stage=stage,
        )

    def paint(self, spec: SceneSpec) -> SceneSpec:
        """A spec of the same shapes in these colours."""
        pairs = zip(spec.objects, self.objects, strict=True)
        return spec.model_copy(
            update={
                "table": spec.table.model_copy(update={"colour": self.table}),
                "background": self.background,
                "objects": tuple(
                    item.model_copy(update={"colour": colour}) for item, colour in pairs
                ),
            }
        )


def stage_of(part: float) -> int:
    """Which of the stages it is when `part` of a run is done."""
    return min(int(part * len(STAGES)), len(STAGES) - 1)


def dreamt(spec: SceneSpec, stage: int) -> SceneSpec:
    """The world to dream of; what a spec itself lets vary stays as it says."""
    spreads = ColourSpreads(table=NEARLY, background=NEARLY, objects=STAGES[stage])
    own = spec.nuisance
    varied = {"colour": own.colour or spreads, "light": own.light or ELSEWHERE}
    return spec.model_copy(update={"nuisance": own.model_copy(update=varied)})


def fit_look(
    posterior: AnyPosterior,
    photos: Tensor,
    open_drawing: Callable[[SceneSpec], Renderer],
) -> SceneSpec:
    """A model's SceneSpec with the colours that photos show.

    Args:
        posterior: the model, which knows its world in the colours of its own spec.
        photos: `[N, 3, H, W]` uint8, as the network takes them.
        open_drawing: opens a renderer of a spec, for pictures as large as the photos.

    Returns:
        The spec with other colours of table, background and objects; those of what hardly any photo
        shows stay as they were.
    """
    own = spec = posterior.spec
    photos = photos[:LOOKED_AT]
    surfaces = [TABLE, BACKGROUND]
    posterior.eval()
    for _ in range(ROUNDS):
        renderer = open_drawing(spec)
        colours: dict[int, list[Tensor]] = {}
        for part in photos.split(CHUNK):
            image = as_float(part)
            # A network that knows one table sees this one in that table's colours.
            known = (image * _cast(own, spec)[:, None, None]).clamp(0.0, 1.0)
            scene = posterior.infer(known).scene
            for surface, colour in _colours(renderer, scene, image, surfaces):
                colours.setdefault(surface, []).append(colour)
        renderer.close()
        spec = _painted(spec, {key: torch.stack(value) for key, value in colours.items()})
        surfaces = [TABLE, BACKGROUND, *range(len(spec.objects))]
    posterior.train()
    return spec


def _cast(own: SceneSpec, spec: SceneSpec) -> Tensor:
    """What to multiply RGB by so that the table of `spec` looks like that of `own`: `[3]`."""
    found = torch.tensor(spec.table.colour).clamp_min(DARKEST)
    return torch.tensor(own.table.colour) / found


def _colours(
    renderer: Renderer, scene: Scene, image: Tensor, surfaces: Iterable[int]
) -> Iterator[tuple[int, Tensor]]:
    """Of each photo the colour `[3]` of each surface that it shows enough of."""
    every = [TABLE, BACKGROUND, *range(len(renderer.spec.objects))]
    dark = _lit(renderer, scene, None)
    shadings = {surface: (_lit(renderer, scene, surface) - dark) / GREY for surface in every}
    total = torch.stack(list(shadings.values())).mean(2).sum(0)  # [B, H, W]
    for surface in surfaces:
        shading = shadings[surface]  # [B, 3, H, W]
        light = shading.mean(1)
        clear = (light > LIT) & (light > PURE * total)
        for one, mine, mask in zip(image, shading, clear, strict=True):
            if int(mask.sum()) >= FEWEST:
                ratio = one[:, mask] / mine[:, mask].clamp_min(1e-3)
                yield surface, ratio.median(1).values


def _lit(renderer: Renderer, scene: Scene, surface: int | None) -> Tensor:
    """Pictures `[B, 3, H, W]` in which one surface is grey, or none, and all else is black."""
    look = Appearance.neutral(renderer.spec, len(scene))
    table, background, objects = (
        torch.zeros_like(colour) for colour in (look.table, look.background, look.objects)
    )
    if surface == TABLE:
        table += GREY
    elif surface == BACKGROUND:
        background += GREY
    elif surface is not None:
        objects[:, :, surface] = GREY
    return renderer.render(
        scene, replace(look, table=table, background=background, objects=objects)
    )


def _painted(spec: SceneSpec, found: dict[int, Tensor]) -> SceneSpec:
    """The spec with each surface in the median of its colours `[N, 3]`, where there are enough."""

    def colour(surface: int, own: Colour) -> Colour:
        if len(found.get(surface, ())) < LEAST_PHOTOS:
            return own
        red, green, blue = found[surface].median(0).values.clamp(0.0, 1.0).tolist()
        return red, green, blue

    look = Look.of(spec, std=0.0, stage=0)
    painted = {
        "table": colour(TABLE, look.table),
        "background": colour(BACKGROUND, look.background),
        "objects": tuple(colour(index, own) for index, own in enumerate(look.objects)),
    }
    return look.model_copy(update=painted).paint(spec)

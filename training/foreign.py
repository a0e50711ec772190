"""Pictures of what a model does not know: the worlds in which it should say so.

Each kind differs from the model's own world in one thing; everything else, sensor noise included,
is as the model has learned it. What the nuisance of its SceneSpec lets vary is not foreign: unknown
colours are ones that it never draws.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from renderer.appearance import Appearance, draw_appearance, hsv_to_rgb
from renderer.backend import Renderer, open_renderer
from renderer.geometry import mesh_geometry
from renderer.nuisance import spoil
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import ObjectClass, SceneSpec

MESHES = ("*.obj", "*.glb")
UP = {".glb": "y", ".obj": "y"}
STANDING = "z"  # the axis that is up in files of the YCB set
TINT = 0.25  # distance in RGB from which on a colour is another one
BRIGHT = (0.25, 1.0)  # value of foreign colours
TRIES = 200  # that scenes are drawn anew until they are of the kind
COARSEST = 5  # noise is made of squares of up to 2^(COARSEST - 1) px

Draw = Callable[[int, torch.Generator], Tensor]


class ForeignWorlds:
    """Draws foreign pictures of the size and by the backend of one model's own.

    Args:
        spec: the model's world.
        height: of a picture, px.
        width: of a picture, px.
        backend: that draws them.
        supersample: samples a pixel along each axis.
        meshes: folder with mesh files of foreign objects, anywhere below it; `meshes` in the folder
            that AIR_DATA names by default, and without that there is no such kind.
    """

    def __init__(
        self,
        spec: SceneSpec,
        *,
        height: int,
        width: int,
        backend: str,
        supersample: int,
        meshes: Path | None = None,
    ) -> None:
        self.spec = spec
        self._form = {"height": height, "width": width, "supersample": supersample}
        self._backend = backend
        if meshes is None and "AIR_DATA" in os.environ:
            meshes = Path(os.environ["AIR_DATA"]) / "meshes"
        self._meshes = meshes if meshes is not None and meshes.is_dir() else None
        self._own = self._open(spec)
        self._open_worlds: dict[str, Renderer] = {}

    @property
    def kinds(self) -> dict[str, Draw]:
        """By name, what draws `n` pictures `[n, H, W, 3]` uint8 of a kind."""
        kinds: dict[str, Draw] = {
            "unknown colours": self._unknown_colours,
            "another table": self._another_table,
            "one object too many": self._one_too_many,
            "empty wall": self._wall,
            "noise": self._noise,
        }
        if self._meshes is not None:
            kinds = {"foreign objects": self._foreign_objects, **kinds}
        return kinds

    def close(self) -> None:
        """Frees the renderers."""
        for renderer in (self._own, *self._open_worlds.values()):
            renderer.close()

    def _open(self, spec: SceneSpec) -> Renderer:
        return open_renderer(spec, **self._form, backend=self._backend)  # type: ignore[arg-type]

    def _foreign_objects(self, n: int, generator: torch.Generator) -> Tensor:
        """Scenes of one to K objects, one of which is of an unknown class, in any colour."""
        key = "foreign objects"
        if key not in self._open_worlds:
            assert self._meshes is not None
            self._open_worlds[key] = self._open(with_foreign_objects(self.spec, self._meshes))
        renderer, known = self._open_worlds[key], len(self.spec.objects)

        def one_foreign(scene: Scene) -> Tensor:
            return ((scene.identity >= known) & scene.presence).sum(1) == 1

        scene = self._drawn(renderer.spec, n, one_foreign, generator)
        look = self._look(renderer.spec, n, generator)
        colours = look.objects.clone()
        shape = (n, scene.slots, len(renderer.spec.objects) - known)
        colours[:, :, known:] = any_colour(shape, generator)
        return self._photograph(renderer, scene, replace(look, objects=colours), generator)

    def _unknown_colours(self, n: int, generator: torch.Generator) -> Tensor:
        """Known shapes, all of them in colours that are not theirs."""
        scene = self._drawn(self.spec, n, lambda scene: scene.count > 0, generator)
        look = self._look(self.spec, n, generator)
        colours = _unlike(look.objects, generator)
        return self._photograph(self._own, scene, replace(look, objects=colours), generator)

    def _another_table(self, n: int, generator: torch.Generator) -> Tensor:
        """The table in a colour that is not its own."""
        look = self._look(self.spec, n, generator)
        look = replace(look, table=_unlike(look.table, generator))
        return self._photograph(
            self._own, sample(self.spec, n, generator=generator), look, generator
        )

    def _one_too_many(self, n: int, generator: torch.Generator) -> Tensor:
        """One object more than the model ever saw, all of them known."""
        key, count = "one object too many", self.spec.count.max + 1
        if key not in self._open_worlds:
            self._open_worlds[key] = self._open(crowded(self.spec, count))
        renderer = self._open_worlds[key]
        scene = sample(renderer.spec, n, generator=generator)
        look = self._look(renderer.spec, n, generator)
        return self._photograph(renderer, scene, look, generator)

    def _wall(self, n: int, generator: torch.Generator) -> Tensor:
        """One colour all over, darker towards one side."""
        height, width = self._form["height"], self._form["width"]
        side = 2 * math.pi * torch.rand(n, 1, 1, generator=generator)
        depth = 0.4 * torch.rand(n, 1, 1, generator=generator)
        x = torch.linspace(-0.5, 0.5, width)
        y = torch.linspace(-0.5, 0.5, height)[:, None]
        shade = 1 - depth * (0.5 + (side.cos() * x + side.sin() * y) / math.sqrt(2))
        wall = any_colour((n,), generator)[:, None, None] * shade[..., None]
        return self._spoiled((255 * wall).round().to(torch.uint8), generator)

    def _noise(self, n: int, generator: torch.Generator) -> Tensor:
        """Squares of random colours, from single pixels to a few of them across a picture."""
        height, width = self._form["height"], self._form["width"]
        found = torch.empty(n, height, width, 3, dtype=torch.uint8)
        for row in found:
            side = 2 ** int(torch.randint(COARSEST, (), generator=generator))
            size = (1, 3, max(1, height // side), max(1, width // side))
            squares = torch.randint(256, size, generator=generator).float()
            row[:] = interpolate(squares, (height, width))[0].permute(1, 2, 0).to(torch.uint8)
        return found

    def _look(self, spec: SceneSpec, n: int, generator: torch.Generator) -> Appearance:
        """As the spec's nuisance has it."""
        return draw_appearance(spec, n, generator=generator) or Appearance.neutral(spec, n)

    def _photograph(
        self, renderer: Renderer, scene: Scene, look: Appearance, generator: torch.Generator
    ) -> Tensor:
        return self._spoiled(renderer.render_bytes(scene, look), generator)

    def _spoiled(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        noise = self.spec.nuisance.noise
        return pictures if noise is None else spoil(pictures, noise, generator=generator)

    def _drawn(
        self,
        spec: SceneSpec,
        n: int,
        wanted: Callable[[Scene], Tensor],
        generator: torch.Generator,
    ) -> Scene:
        """Of the scenes that a prior draws, the first `n` that are wanted."""
        found: list[Scene] = []
        for _ in range(TRIES):
            scene = sample(spec, n, generator=generator)
            found.append(scene[wanted(scene)])
            if sum(len(part) for part in found) >= n:
                return Scene.cat(found)[:n]
        raise ValueError(f"{spec.name}: hardly any scene is of the kind that was asked for")


def with_foreign_objects(spec: SceneSpec, meshes: Path) -> SceneSpec:
    """The spec with each mesh below a folder as a further class, as large as its own objects.

    Raises:
        ValueError: the folder holds no mesh.
    """
    files = sorted(file for pattern in MESHES for file in meshes.rglob(pattern))
    if not files:
        raise ValueError(f"{meshes}: holds no {' or '.join(MESHES)}; give a folder with meshes")
    reach = median(geometry.radius for geometry in spec.geometries)
    data = _plain(spec)
    foreign = [_foreign(file, meshes, reach) for file in files]
    data["objects"] += [item.model_dump(mode="json", exclude_defaults=True) for item in foreign]
    return SceneSpec.build({**data, "name": f"{spec.name}-foreign"}, folder=spec.folder)


def crowded(spec: SceneSpec, count: int) -> SceneSpec:
    """The spec with exactly `count` objects in each scene."""
    data = _plain(spec)
    data["count"] = {"max": count, "probabilities": [*[0.0] * count, 1.0]}
    data["placement"]["repeats"] = True
    return SceneSpec.build({**data, "name": f"{spec.name}-crowded"}, folder=spec.folder)


def _plain(spec: SceneSpec) -> dict[str, Any]:
    """A spec as plain data: a copy of the model would keep what it has computed of its objects."""
    return spec.model_dump(mode="json", exclude_defaults=True)


def any_colour(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Colours `[*shape, 3]` of any hue and saturation, not too dark to be seen."""
    hue, saturation, value = torch.rand(3, *shape, generator=generator)
    return hsv_to_rgb(hue, saturation, BRIGHT[0] + (BRIGHT[1] - BRIGHT[0]) * value)


def _unlike(colours: Tensor, generator: torch.Generator) -> Tensor:
    """Colours `[..., 3]`, each of which is another one than that in its place."""
    found = any_colour(tuple(colours.shape[:-1]), generator)
    for _ in range(TRIES):
        alike = (found - colours).norm(dim=-1) < TINT
        if not bool(alike.any()):
            break
        found = any_colour(tuple(colours.shape[:-1]), generator).where(alike[..., None], found)
    return found


def _foreign(file: Path, folder: Path, reach: float) -> ObjectClass:
    """A class of the mesh in a file, that reaches `reach` m from its origin."""
    up = STANDING if "ycb" in file.parts else UP[file.suffix]
    size = mesh_geometry(file, scale=1.0, up_axis=up).radius
    return ObjectClass(
        name="-".join(file.relative_to(folder).with_suffix("").parts),
        mesh=file.resolve(),
        scale=reach / size,
        up_axis=up,  # type: ignore[arg-type]
        colour=(0.5, 0.5, 0.5),
    )

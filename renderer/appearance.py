"""How scenes are lit, coloured and looked at where that is not as their spec says.

What a scene is, and what a network infers of it, is a `Scene`. All that changes its picture
besides is an `Appearance`: `nuisance:` in the SceneSpec says how it varies, `draw_appearance` draws
one, and both backends draw scenes with it. What is done to pixels is in `renderer.nuisance`.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from renderer.camera import rotation_z
from renderer.fields import Colour
from renderer.light import AMBIENT, HEADLIGHT_DIFFUSE, LIGHT_DIFFUSE, LIGHT_DIRECTION
from renderer.scene import Scene
from renderer.spec import SceneSpec
from renderer.variation import ColourSpread


@dataclass(frozen=True)
class Appearance:
    """Light, colours and camera of a batch of B scenes with K slots, of C classes.

    A colour belongs to a slot and a class: whichever object a slot turns out to hold has one, and
    two objects of a class need not have the same. Where there is a texture, it is tinted.
    """

    light_direction: Tensor  # [B, 3] unit vectors in the table frame, the way the light falls
    light: Tensor  # [B] of the lamp, on a surface that it hits at a right angle
    headlight: Tensor  # [B] of the light from the camera, likewise
    ambient: Tensor  # [B] of the light from everywhere
    table: Tensor  # [B, 3] RGB in [0, 1]
    objects: Tensor  # [B, K, C, 3] RGB in [0, 1]
    background: Tensor  # [B, 3] RGB in [0, 1]
    distance: Tensor  # [B] m, of the camera from its target
    elevation: Tensor  # [B] rad, of the camera above the table
    tilt: Tensor  # [B] rad, by which it looks above its target
    roll: Tensor  # [B] rad, about its line of sight; what it sees turns clockwise

    def __post_init__(self) -> None:
        batch = len(self.light)
        shapes = {"light_direction": (3,), "table": (3,), "background": (3,)}
        shapes["objects"] = (*self.objects.shape[1:3], 3)
        for field in fields(self):
            found = tuple(getattr(self, field.name).shape)
            expected = (batch, *shapes.get(field.name, ()))
            if found != expected:
                raise ValueError(f"Appearance.{field.name} has shape {found}, expected {expected}")

    def __len__(self) -> int:
        return len(self.light)

    def __getitem__(self, index: slice | Tensor) -> Appearance:
        """The appearances at `index`, still as a batch."""
        return Appearance(*(value[index] for value in self.tensors()))

    def tensors(self) -> Iterator[Tensor]:
        """The fields in their order."""
        return (getattr(self, field.name) for field in fields(self))

    def to(self, device: torch.device | str) -> Appearance:
        """The same on `device`."""
        return Appearance(*(value.to(device) for value in self.tensors()))

    def with_slots(self, slots: int) -> Appearance:
        """The same for scenes of that many slots; colours of new ones are black."""
        more = slots - self.objects.shape[1]
        return replace(self, objects=pad(self.objects, (0, 0, 0, 0, 0, more))) if more else self

    @staticmethod
    def cat(appearances: Sequence[Appearance]) -> Appearance:
        """One batch from several with the same number of slots."""
        columns = zip(*(one.tensors() for one in appearances), strict=True)
        return Appearance(*(torch.cat(values) for values in columns))

    @staticmethod
    def neutral(spec: SceneSpec, batch: int, *, slots: int | None = None) -> Appearance:
        """What scenes of `spec` look like without any: `batch` times the same.

        Args:
            spec: the world.
            batch: B.
            slots: K; the spec's greatest count when not given.
        """
        slots, camera = slots or spec.count.max, spec.camera
        direction = torch.tensor(LIGHT_DIRECTION)
        colours = torch.tensor([item.colour for item in spec.objects])
        return Appearance(
            (direction / direction.norm()).expand(batch, 3),
            torch.full((batch,), LIGHT_DIFFUSE),
            torch.full((batch,), HEADLIGHT_DIFFUSE),
            torch.full((batch,), AMBIENT),
            torch.tensor(spec.table.colour).expand(batch, 3),
            colours.expand(batch, slots, -1, 3),
            torch.tensor(spec.background).expand(batch, 3),
            torch.full((batch,), camera.distance),
            torch.full((batch,), math.radians(camera.elevation_deg)),
            torch.zeros(batch),
            torch.full((batch,), math.radians(camera.roll_deg)),
        )

    def camera_poses(
        self, target: tuple[float, float, float], azimuth: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Positions `[B, 3]` m and axes `[B, 3, 3]` (columns right, up, backward) of the cameras.

        Args:
            target: m, what they look at but for their tilt.
            azimuth: `[B]` rad, as `renderer.camera.camera_pose`.
        """
        elevation, distance, tilt, roll = (
            value.to(azimuth) for value in (self.elevation, self.distance, self.tilt, self.roll)
        )
        turn = rotation_z(azimuth)
        # At azimuth 0 the camera is upright at -y and turns about +x: x right, z up, -y backward.
        upright = azimuth.new_tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
        level = turn @ upright
        axes = level @ _rotation_x(tilt - elevation) @ rotation_z(roll)
        backward = (level @ _rotation_x(-elevation))[..., 2]
        return azimuth.new_tensor(target) + distance[:, None] * backward, axes


def appearance_of(scene: Scene, appearance: Appearance, slots: int) -> Appearance:
    """The appearance of scenes that a renderer shows with exactly `slots` slots.

    Raises:
        ValueError: it is not one for each scene, or has not a colour for each slot.
    """
    if len(appearance) != len(scene) or appearance.objects.shape[1] < scene.slots:
        raise ValueError(
            f"{len(scene)} scenes of {scene.slots} slots got {len(appearance)} appearances of "
            f"{appearance.objects.shape[1]}; draw as many, with draw_appearance"
        )
    return appearance.with_slots(slots)


def draw_appearance(
    spec: SceneSpec, n: int, *, generator: torch.Generator | None = None
) -> Appearance | None:
    """Draws `n` appearances as the spec's `nuisance:` says; None where none of it is drawn.

    Args:
        spec: the world.
        n: how many.
        generator: of random numbers, on the CPU; torch's own when not given.
    """
    nuisance = spec.nuisance
    if not nuisance.drawn:
        return None

    def between(ends: tuple[float, float], unit: float = 1.0) -> Tensor:
        least, greatest = ends
        return unit * (least + (greatest - least) * torch.rand(n, generator=generator))

    look, degree = Appearance.neutral(spec, n), math.radians(1.0)
    if (light := nuisance.light) is not None:
        side = 2 * math.pi * torch.rand(n, generator=generator)
        look = replace(
            look,
            light_direction=_leaning(look.light_direction, between(light.turn_deg, degree), side),
            light=look.light * between(light.strength),
            headlight=look.headlight * between(light.headlight),
            ambient=look.ambient * between(light.ambient),
        )
    if (spreads := nuisance.colour) is not None:
        slots = spec.count.max
        objects = [
            _stray(item.colour, spreads.of_class(item.name), (n, slots), generator)
            for item in spec.objects
        ]
        look = replace(
            look,
            table=_stray(spec.table.colour, spreads.table, (n,), generator),
            background=_stray(spec.background, spreads.background, (n,), generator),
            objects=torch.stack(objects, dim=2),
        )
    if (jitter := nuisance.camera_jitter) is not None:
        look = replace(
            look,
            distance=look.distance + between(jitter.distance),
            elevation=look.elevation + between(jitter.elevation_deg, degree),
            tilt=between(jitter.tilt_deg, degree),
            roll=look.roll + between(jitter.roll_deg, degree),
        )
    return look


def _stray(
    colour: Colour, spread: ColourSpread, shape: tuple[int, ...], generator: torch.Generator | None
) -> Tensor:
    """Colours `[*shape, 3]` around one."""
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    part = torch.rand(3, *shape, generator=generator)

    def around(centre: float, reach: float, part: Tensor) -> Tensor:
        least, greatest = max(0.0, centre - reach), min(1.0, centre + reach)
        return least + (greatest - least) * part

    return hsv_to_rgb(
        hue + (2 * part[0] - 1) * (spread.hue_deg / 360.0),
        around(saturation, spread.saturation, part[1]),
        around(value, spread.value, part[2]),
    )


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB `[..., 3]` of hues (in turns, any), saturations and values in [0, 1], `[...]` each."""
    sixth = (hue[..., None] * 6 + hue.new_tensor([5.0, 3.0, 1.0])) % 6
    share = torch.minimum(sixth, 4 - sixth).clamp(0.0, 1.0)
    return value[..., None] * (1 - saturation[..., None] * share)


def _leaning(direction: Tensor, angle: Tensor, side: Tensor) -> Tensor:
    """Unit vectors `[B, 3]` turned by `angle` `[B]` rad, towards the side `side` `[B]` rad."""
    across = torch.linalg.cross(
        direction, direction.new_tensor([0.0, 0.0, 1.0]).expand_as(direction)
    )
    across = across / across.norm(dim=-1, keepdim=True)
    along = torch.linalg.cross(across, direction)
    sideways = side.cos()[:, None] * across + side.sin()[:, None] * along
    return angle.cos()[:, None] * direction + angle.sin()[:, None] * sideways


def _rotation_x(angle: Tensor) -> Tensor:
    """Rotations about +x by `angle` (rad, `[B]`): `[B, 3, 3]`."""
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [one, zero, zero, zero, cos, -sin, zero, sin, cos]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))

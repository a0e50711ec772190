"""Finite-difference stencils: which scenes to draw, and how they make a gradient. Pure arithmetic.

MuJoCo hands back pictures but not their derivatives, so these are taken by differences (appendix
H.1). A scene has D = 3K + 1 degrees of freedom, in this order: x and y of each slot, the yaw of
each slot, the camera's azimuth. `plan` lists the moved scenes, `perturb` makes them, and
`contract` turns how far each moved the loss to first order into the gradient. How the moved scenes
are drawn is nobody's business here: whole pictures and windows of pictures share all of this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
from torch import Tensor

from renderer.scene import Scene
from renderer.spec import SceneSpec

Scheme = Literal["central", "forward", "random"]
"""`central`: a step to both sides, two pictures for each freedom, error O(step²).
`forward`: one step upwards, one picture, error O(step), the same bias each time; the paper's.
`random`: one step to a side drawn anew each time, one picture; central differences on average."""

# Pixels by which a step moves what it moves. Measured on the built-in scenes at 32 and 64 px
# against finely sampled pictures: between half a pixel and one, whatever the supersampling.
LEAD = 0.75
LARGEST_YAW_STEP = 0.25  # rad; an object of a pixel or two shows no turn, however far


@dataclass(frozen=True)
class Steps:
    """How far each kind of freedom is moved. Finite and greater than zero.

    Too short, and a picture of 8 bits with few samples a pixel either stays as it is or jumps;
    too long, and the difference skips over the edge that it should follow. See `for_size`.
    """

    position: float  # m, x and y alike
    yaw: float  # rad
    azimuth: float  # rad

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"Steps.{field.name} is {value}; it must be finite and above 0")

    @staticmethod
    def for_size(spec: SceneSpec, height: int) -> Steps:
        """Steps that show as about a pixel's shift in pictures `height` px high.

        In metres, a pixel's footprint at the camera's target, taken across the line of sight. A
        yaw step shifts a typical object's rim by that much, an azimuth step the farthest place
        where an object can stand. On the built-in scenes: 3 cm, 0.2 rad and 0.06 rad at 32 px.

        Args:
            spec: the world.
            height: of a picture, px.
        """
        camera, extent = spec.camera, spec.placement.extent
        visible = 2 * camera.distance * math.tan(math.radians(camera.fovy_deg) / 2)
        lead = LEAD * visible / height
        classes = list(zip(spec.geometries, spec.symmetry_orders, strict=True))
        # A class that shows no turn has no say in how far to turn, unless there is no other.
        radii = [geometry.radius for geometry, order in classes if order != 0]
        radii = radii or [geometry.radius for geometry, _ in classes]
        # At half a symmetric object's period a turn forwards looks like one backwards.
        eighth = math.pi / 4 / max(1, *spec.symmetry_orders)
        reach = math.hypot(*(abs(camera.target[axis]) + extent[axis] for axis in range(2)))
        return Steps(
            position=lead,
            yaw=min(lead * len(radii) / sum(radii), eighth, LARGEST_YAW_STEP),
            azimuth=lead / reach,
        )

    def scaled(self, factor: float) -> Steps:
        """All steps times `factor`."""
        return Steps(self.position * factor, self.yaw * factor, self.azimuth * factor)

    def row(self, slots: int) -> Tensor:
        """The step of each freedom of a scene with K `slots`: `[3K + 1]` float64, m and rad."""
        values = [self.position] * (2 * slots) + [self.yaw] * slots + [self.azimuth]
        return torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True)
class Differences:
    """N scenes, each one of a batch with one freedom moved, and what they count for.

    The derivative along freedom d of scene b is the sum of `weight[n] * (I[n] - I[b])` over the
    n with `row[n] == b` and `freedom[n] == d`, where I[n] is the moved scene's picture and I[b] the
    picture of the scene as it is. That difference is zero wherever the move changes nothing.
    """

    row: Tensor  # [N] int64, which scene of the batch
    freedom: Tensor  # [N] int64, which of its D freedoms
    offset: Tensor  # [N] m or rad, how far it is moved
    weight: Tensor  # [N] 1/m or 1/rad

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: slice | Tensor) -> Differences:
        """Those at `index`, a slice, a mask `[N]` or numbers `[M]` int64."""
        if isinstance(index, Tensor) and index.dtype == torch.bool:
            index = index.nonzero()[:, 0]  # once, not for each field: a card's host waits for it
        return Differences(*(getattr(self, field.name)[index] for field in fields(self)))

    def slot(self, slots: int) -> tuple[Tensor, Tensor]:
        """The slot `[N]` that each moves, and whether it moves one `[N]` bool, not the camera.

        Args:
            slots: K; the slot of the camera's moves is 0.
        """
        of_object = self.freedom < 3 * slots
        slot = torch.where(self.freedom < 2 * slots, self.freedom // 2, self.freedom - 2 * slots)
        return slot.where(of_object, 0), of_object

    def split(self, size: int) -> Iterator[Differences]:
        """All of them in their order, at most `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))


def freedoms(
    scene: Scene,
    symmetry_orders: tuple[int, ...],
    *,
    position: bool = True,
    yaw: bool = True,
    azimuth: bool = True,
) -> Tensor:
    """Which freedoms can change the picture and are asked for: `[B, 3K + 1]` bool.

    Slots without an object have none, and objects of continuous symmetry have no yaw.

    Args:
        scene: B scenes.
        symmetry_orders: of each class, 0 for continuous, as `SceneSpec.symmetry_orders`.
        position: whether positions are asked for.
        yaw: whether yaws are asked for.
        azimuth: whether the camera's azimuth is asked for.
    """
    presence = scene.presence
    turns = torch.tensor(symmetry_orders, device=presence.device) != 0
    # What an absent slot holds has no meaning, and need not be the index of a class.
    shows = presence & turns[scene.identity.where(presence, 0)]
    return torch.cat(
        [
            presence.repeat_interleave(2, dim=1) & position,
            shows & yaw,
            presence.new_full((len(scene), 1), azimuth),
        ],
        dim=1,
    )


def plan(
    free: Tensor, steps: Steps, scheme: Scheme, *, generator: torch.Generator | None = None
) -> Differences:
    """The scenes to draw for the derivatives along the freedoms marked in `free`.

    Args:
        free: `[B, 3K + 1]` bool, as `freedoms` gives it.
        steps: how far to move.
        scheme: to which side; see `Scheme`.
        generator: of the signs of `random`, on any device; torch's own on the CPU when not given.

    Raises:
        ValueError: no scheme has that name.
    """
    row, freedom = free.nonzero(as_tuple=True)
    step = steps.row(free.shape[1] // 3).to(free.device)[freedom]
    if scheme == "central":
        row, freedom = row.repeat_interleave(2), freedom.repeat_interleave(2)
        return Differences(
            row,
            freedom,
            offset=torch.stack([step, -step], dim=1).flatten(),
            weight=torch.stack([0.5 / step, -0.5 / step], dim=1).flatten(),
        )
    if scheme == "forward":
        return Differences(row, freedom, offset=step, weight=1 / step)
    if scheme == "random":
        # The same signs wherever the scenes are.
        where = generator.device if generator is not None else "cpu"
        sign = torch.randint(2, (len(row),), generator=generator, device=where).to(step) * 2 - 1
        return Differences(row, freedom, offset=sign * step, weight=sign / step)
    raise ValueError(f"unknown scheme {scheme!r}; choose one of: {', '.join(get_args(Scheme))}")


def perturb(scene: Scene, differences: Differences) -> Scene:
    """The N moved scenes.

    Args:
        scene: B scenes.
        differences: N moves of them.
    """
    row, freedom = differences.row, differences.freedom
    values = [scene.position.flatten(1), scene.yaw, scene.azimuth[:, None]]
    moved = torch.cat(values, dim=1).detach()[row]
    moved[torch.arange(len(row), device=row.device), freedom] += differences.offset.to(moved)
    position, yaw, azimuth = moved.split(_widths(scene.slots), dim=1)
    return Scene(
        scene.presence[row],
        scene.identity[row],
        position.reshape(len(row), scene.slots, 2),
        yaw,
        azimuth[:, 0],
    )


def contract(
    differences: Differences, change: Tensor, batch: int, slots: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a loss to position `[B, K, 2]`, yaw `[B, K]` and azimuth `[B]`.

    The vector-Jacobian product of the picture with the upstream gradient, once each moved picture
    has been reduced to a number. Freedoms that were not moved have gradient zero.

    Args:
        differences: N moves.
        change: `[N]`, for each the inner product of the upstream gradient of its scene's picture
            with the change of that picture, `I[n] - I[b]`.
        batch: B.
        slots: K.
    """
    gradient = change.new_zeros(batch, 3 * slots + 1)
    index = (differences.row, differences.freedom)
    gradient.index_put_(index, differences.weight.to(change) * change, accumulate=True)
    position, yaw, azimuth = gradient.split(_widths(slots), dim=1)
    return position.reshape(batch, slots, 2), yaw, azimuth[:, 0]


def _widths(slots: int) -> list[int]:
    """How many freedoms are positions, yaws and azimuths."""
    return [2 * slots, slots, 1]

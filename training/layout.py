"""A table, a place to stand on it and a camera that suit some objects, where nobody chose them.

The smaller the table, the larger its objects in the picture, and the more often they would stand
in each other. So the table is as small as leaves a fair chance that objects thrown on it at random
do not overlap, and the camera as near as sees all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from renderer.camera import camera_pose, project
from renderer.geometry import ObjectGeometry
from renderer.placement import acceptance, stack_footprints
from renderer.spec import LEAST_ACCEPTANCE, Camera

Floats = NDArray[np.float64]
Colour = tuple[float, float, float]

ROOM = 0.33  # chance that as many objects as there can be do not overlap, where thrown at random
THROWS = 4000
MARGIN = 0.02  # of the picture, left free at its edges
REACH = 0.3  # of the largest radius, beyond its centre, that has to be seen of an object

ELEVATION, FOVY, AZIMUTH = 40.0, 45.0, (-40.0, 40.0)  # degrees, of a camera that nobody has chosen

# Of tables, the first one preferred: wood, slate, linen, felt, blue.
TABLES: tuple[Colour, ...] = (
    (0.55, 0.42, 0.30),
    (0.20, 0.22, 0.25),
    (0.80, 0.76, 0.68),
    (0.22, 0.40, 0.28),
    (0.30, 0.38, 0.55),
)
CONTRAST = 0.25  # distance in RGB from all objects that is enough


@dataclass(frozen=True)
class Layout:
    """Where objects stand, on what, and how large that is."""

    half_size: float  # m, of the table
    extent: tuple[float, float]  # m, of the places of their centres
    room: float  # chance that as many objects as there can be do not overlap there


def arrange(geometries: Sequence[ObjectGeometry], count: int) -> Layout:
    """The smallest table on which `count` such objects find room.

    Args:
        geometries: of the classes.
        count: greatest number of objects on the table.
    """
    footprints = stack_footprints([geometry.footprint for geometry in geometries])
    radius = max(geometry.radius for geometry in geometries)

    def room(extent: float) -> float:
        return acceptance(footprints, (extent, extent), count, True, samples=THROWS)

    low, high = 0.5 * radius, radius
    while room(high) < ROOM:
        low, high = high, 1.5 * high
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (low, middle) if room(middle) >= ROOM else (middle, high)
    extent = _rounded(max(high, radius))
    return Layout(_rounded(extent + radius), (extent, extent), room(extent))


def stand_back(
    geometries: Sequence[ObjectGeometry], extent: tuple[float, float], camera: dict[str, object]
) -> float:
    """How far [m] a camera has to be from its target to see all objects wherever they stand.

    Args:
        geometries: of the classes.
        extent: m, of the places of their centres.
        camera: the other keys of a SceneSpec's camera.
    """
    low, high = 0.1, 0.2
    while not all_seen(geometries, extent, Camera(distance=high, **camera)):  # type: ignore[arg-type]
        low, high = high, 1.5 * high
    for _ in range(12):
        middle = (low + high) / 2
        seen = all_seen(geometries, extent, Camera(distance=middle, **camera))  # type: ignore[arg-type]
        low, high = (low, middle) if seen else (middle, high)
    return _rounded(high)


def in_sight(
    geometries: Sequence[ObjectGeometry], layout: Layout, count: int, camera: Camera
) -> tuple[Layout, list[str]]:
    """The layout, made smaller where a camera that stands fast does not see all of it; complaints.

    Args:
        geometries: of the classes.
        layout: that `arrange` found.
        count: greatest number of objects on the table.
        camera: where it stands.
    """
    extent = layout.extent[0]
    if all_seen(geometries, (extent, extent), camera):
        return layout, []
    low, high = 0.0, extent
    for _ in range(12):
        middle = (low + high) / 2
        seen = all_seen(geometries, (middle, middle), camera)
        low, high = (middle, high) if seen else (low, middle)
    if low < 0.01:
        raise ValueError(
            "the camera does not see the middle of the table, where its frame has its origin; put "
            "that into the middle of the picture, or leave table_in_camera out"
        )
    extent = math.floor(1000 * low) / 1000
    footprints = stack_footprints([geometry.footprint for geometry in geometries])
    room = acceptance(footprints, (extent, extent), count, True, samples=THROWS)
    told = (
        f"camera: it sees objects within {extent:g} m of the middle of the table only, where "
        f"{count} of them find room {room:.0%} of the time"
    )
    if room < LEAST_ACCEPTANCE:
        raise ValueError(f"{told}: lower --count, or move the camera back")
    half = max(layout.half_size, extent)
    return Layout(half, (extent, extent), room), [f"{told}: move it back if that is too little"]


def all_seen(
    geometries: Sequence[ObjectGeometry], extent: tuple[float, float], camera: Camera
) -> bool:
    """Whether what stands within +-`extent` m is in the picture, from every azimuth.

    Not all of it, at the corners: that would make everything smaller for the sake of few scenes.
    """
    radius = max(geometry.radius for geometry in geometries)
    height = max(geometry.height for geometry in geometries)
    corners = torch.tensor(
        [
            (sx * (extent[0] + REACH * radius), sy * (extent[1] + REACH * radius), z)
            for sx in (-1.0, 1.0)
            for sy in (-1.0, 1.0)
            for z in (0.0, height)
        ],
        dtype=torch.float64,
    )
    azimuths = torch.linspace(*camera.azimuth_range, 9, dtype=torch.float64)
    across, down = visible_share(camera, azimuths, corners)
    inside = torch.tensor([MARGIN, 1 - MARGIN], dtype=torch.float64)
    return bool(((across > inside[0]) & (across < inside[1])).all()) and bool(
        ((down > inside[0]) & (down < inside[1])).all()
    )


def visible_share(
    camera: Camera, azimuths: torch.Tensor, points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where points [N, 3] m are seen from azimuths [A] rad: [A, N] from 0 to 1, across and down.

    Beyond that range, or infinite behind the camera, where they are not in the picture.
    """
    position, axes = camera_pose(camera, azimuths)
    away = ((position[:, None] - points) @ axes)[..., 2]
    height, width = 1000, round(1000 * camera.aspect)
    pixels = project(camera, azimuths, points.expand(len(azimuths), -1, -1), height, width)
    share = pixels / torch.tensor([width, height], dtype=pixels.dtype)
    share = share.masked_fill((away < 1e-3)[..., None], math.inf)
    return share[..., 0], share[..., 1]


def table_colour(colours: Sequence[Floats]) -> Colour:
    """A table from which objects of these mean colours [3] can be told."""

    def contrast(table: Colour) -> float:
        return min(float(np.linalg.norm(np.array(table) - colour)) for colour in colours)

    enough = [table for table in TABLES if contrast(table) >= CONTRAST]
    return enough[0] if enough else max(TABLES, key=contrast)


def _rounded(length: float) -> float:
    """Up to the next number of two digits or so, as people would write it."""
    step = 10.0 ** (math.floor(math.log10(length)) - 1)
    return round(math.ceil(length / step - 1e-9) * step, 6)

"""Which part of a picture a moved object can change. Pure geometry.

Nothing casts a shadow or mirrors anything, so an object's pose shows only where the object was seen
before the move or is seen after it. A window is a rectangle of whole pixels, a row of a tensor
`[N, 4]` int64: left, top, width, height, all px, the origin at the picture's top left corner. The
pixels of several windows are packed one window behind the other, each row by row from its top
left: `Pixels` says which is which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from renderer.appearance import Appearance
from renderer.camera import focal_length, principal_point
from renderer.differences import Differences
from renderer.geometry import ObjectGeometry
from renderer.scene import Scene
from renderer.spec import SceneSpec

SIDES = 16  # of the prism around a class; a round one reaches 2 % farther than what is in it

# Windows are wider than the projected prisms by this much. The projection is exact; OpenGL moves
# vertices to a grid of 1/256 px, and float32 rounds.
MARGIN = 0.1  # px


def prism(geometry: ObjectGeometry) -> Tensor:
    """Corners `[2 * SIDES, 3]` m, in the object's frame, of an upright prism that holds it."""
    angle = torch.arange(SIDES, dtype=torch.float64) * (2 * math.pi / SIDES)
    direction = torch.stack([angle.cos(), angle.sin()], dim=-1)  # [S, 2]
    if geometry.mesh is not None:
        used = np.unique(geometry.mesh.faces)
        outline = torch.from_numpy(np.asarray(geometry.mesh.vertices, np.float64)[used, :2])
        support = (direction @ outline.T).amax(dim=1)
    elif geometry.symmetries == (0,):  # a round shape is its footprint
        discs = geometry.footprint.double()
        support = (direction @ discs[:, :2].T + discs[:, 2]).amax(dim=1)
    else:
        (left, front), (right, back) = geometry.lower[:2], geometry.upper[:2]
        corners = [[x, y] for x in (left, right) for y in (front, back)]
        support = (direction @ torch.tensor(corners, dtype=torch.float64).T).amax(dim=1)
    # Where each side's line meets the next one's: along its normal by its own support, along the
    # line by as much as reaches the other.
    step = 2 * math.pi / SIDES
    along = (support.roll(-1) - support * math.cos(step)) / math.sin(step)
    normal = torch.stack([-direction[:, 1], direction[:, 0]], dim=-1)
    polygon = support[:, None] * direction + along[:, None] * normal
    heights = (geometry.lower[2], geometry.upper[2])
    levels = [torch.cat([polygon, torch.full((SIDES, 1), z).double()], dim=1) for z in heights]
    return torch.cat(levels)


@lru_cache(maxsize=32)
def prisms(spec: SceneSpec, device: torch.device) -> Tensor:
    """The prism of each class: `[C, 2 * SIDES, 3]` m, float32, on `device`."""
    return torch.stack([prism(geometry) for geometry in spec.geometries]).float().to(device)


def object_boxes(
    spec: SceneSpec,
    scene: Scene,
    height: int,
    width: int,
    appearance: Appearance | None = None,
) -> Tensor:
    """Where each object can be seen: `[B, K, 4]` px, its least x and y, its greatest x and y.

    Bounds of the projected prism, not cut off at the picture's border. An absent object's box is
    empty (from +inf to -inf), that of an object that reaches beside the camera has no bounds.

    Args:
        spec: the world.
        scene: B scenes.
        height: of a picture, px.
        width: of a picture, px.
        appearance: of each scene, for its camera; the spec's when not given.
    """
    camera = spec.camera
    points = prisms(spec, scene.azimuth.device)[scene.identity.where(scene.presence, 0)]
    # As the camera at azimuth 0 sees the table turned: no matrix for each scene.
    azimuth = scene.azimuth.detach().float()[:, None]
    turn = (scene.yaw.detach().float() - azimuth)[..., None]  # [B, K, 1]
    position = scene.position.detach().float()
    x, y = position[..., 0] - camera.target[0], position[..., 1] - camera.target[1]
    cos, sin = azimuth.cos(), azimuth.sin()
    x, y = (cos * x + sin * y)[..., None], (cos * y - sin * x)[..., None]
    cos, sin = turn.cos(), turn.sin()
    across = x + cos * points[..., 0] - sin * points[..., 1]  # [B, K, P] m
    away = y + sin * points[..., 0] + cos * points[..., 1]
    up = points[..., 2] - camera.target[2]
    focal, (middle, centre) = focal_length(camera, height), principal_point(camera, height, width)
    if appearance is None:
        elevation = math.radians(camera.elevation_deg)
        high, deep = math.sin(elevation), math.cos(elevation)
        depth = camera.distance + deep * away - high * up
        above = high * away + deep * up
        if camera.roll_deg:
            angle = math.radians(camera.roll_deg)
            across, above = _rolled(across, above, math.cos(angle), math.sin(angle))
    else:
        across, above, depth = _seen_from(appearance, across, away, up)
    scale = focal / depth
    right = middle + across * scale
    down = centre - above * scale
    near = torch.stack([right.amin(-1), down.amin(-1)], dim=-1)
    far = torch.stack([right.amax(-1), down.amax(-1)], dim=-1)
    beside = (depth.amin(-1) < 1e-3 * camera.distance)[..., None]
    absent = ~scene.presence[..., None]
    near = near.masked_fill(beside, -math.inf).masked_fill(absent, math.inf)
    far = far.masked_fill(beside, math.inf).masked_fill(absent, -math.inf)
    return torch.cat([near, far], dim=-1)


def _seen_from(
    appearance: Appearance, across: Tensor, away: Tensor, up: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Points as each scene's camera sees them: to its right, above its axis, before it, m.

    Args:
        appearance: of B scenes.
        across: `[B, K, P]` m from the target to the right, of the camera when it is upright.
        away: likewise away from it.
        up: likewise upwards.
    """
    distance, elevation, tilt, roll = (
        value.to(across)[:, None, None]
        for value in (appearance.distance, appearance.elevation, appearance.tilt, appearance.roll)
    )
    high, deep = elevation.sin(), elevation.cos()
    depth, above = distance + deep * away - high * up, high * away + deep * up
    cos, sin = tilt.cos(), tilt.sin()
    depth, above = cos * depth + sin * above, cos * above - sin * depth
    return *_rolled(across, above, roll.cos(), roll.sin()), depth


def _rolled(
    across: Tensor, above: Tensor, cos: Tensor | float, sin: Tensor | float
) -> tuple[Tensor, Tensor]:
    """The same points as a camera sees them that is turned about its line of sight."""
    return cos * across + sin * above, cos * above - sin * across


def windows_of(boxes: Tensor, height: int, width: int) -> Tensor:
    """The pixels that boxes `[N, 4]` (px, as `object_boxes`) touch: windows `[N, 4]` int64.

    Cut off at the picture's border; width and height are 0 where nothing is left.
    """
    ends = torch.cat([(boxes[:, :2] - MARGIN).floor(), (boxes[:, 2:] + MARGIN).ceil()], dim=1)
    ends = torch.stack([ends[:, ::2].clamp(0, width), ends[:, 1::2].clamp(0, height)], dim=2).long()
    low, high = ends.unbind(dim=1)
    extent = (high - low).clamp_min(0)
    return torch.cat([low, extent * extent.all(dim=1, keepdim=True)], dim=1)


def change_windows(
    spec: SceneSpec,
    scene: Scene,
    differences: Differences,
    moved: Scene,
    height: int,
    width: int,
    appearance: Appearance | None = None,
) -> Tensor:
    """The windows `[N, 4]` beyond which moves change no pixel.

    Holds the object before and after the move; the whole picture where the camera moves.

    Args:
        spec: the world.
        scene: B scenes.
        differences: N moves of them.
        moved: the N moved scenes.
        height: of a picture, px.
        width: of a picture, px.
        appearance: of the B scenes, for their cameras; the spec's when not given.
    """
    slot, of_object = differences.slot(scene.slots)
    index = (torch.arange(len(slot), device=slot.device), slot)
    alone = Scene(
        (moved.presence[index] & of_object)[:, None],
        moved.identity[index][:, None],
        moved.position[index][:, None],
        moved.yaw[index][:, None],
        moved.azimuth,
    )
    looks = None if appearance is None else appearance[differences.row]
    before = object_boxes(spec, scene, height, width, appearance)[differences.row, slot]
    after = object_boxes(spec, alone, height, width, looks)[:, 0]
    of_camera = ~of_object[:, None]
    near = torch.minimum(before, after)[:, :2].masked_fill(of_camera, -math.inf)
    far = torch.maximum(before, after)[:, 2:].masked_fill(of_camera, math.inf)
    return windows_of(torch.cat([near, far], dim=1), height, width)


@dataclass(frozen=True)
class Pixels:
    """The P pixels of N windows, packed: of each its window and its place in the picture."""

    window: Tensor  # [P] int64
    x: Tensor  # [P] int64, px from the picture's left
    y: Tensor  # [P] int64, px from the picture's top

    @staticmethod
    def of(windows: Tensor) -> Pixels:
        """All pixels of windows `[N, 4]`, in their packed order."""
        left, top, width, height = windows.unbind(dim=1)
        # A card's host has to hear how much room to make: once, not before each step.
        rows, pixels = torch.stack([height.sum(), (width * height).sum()]).tolist()
        # The rows of all windows first, then the pixels of all rows.
        index = torch.arange(len(windows), device=windows.device)
        index = index.repeat_interleave(height, output_size=rows)
        y = torch.arange(len(index), device=index.device) - (height.cumsum(0) - height - top)[index]
        wide = width[index]
        row = torch.arange(len(index), device=index.device)
        row = row.repeat_interleave(wide, output_size=pixels)
        skipped = wide.cumsum(0) - wide - left[index]
        x = torch.arange(len(row), device=row.device) - skipped[row]
        return Pixels(index[row], x, y[row])


def tile_windows(windows: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Covers windows with square tiles: of each tile the window, left and top, all `[T]` int64.

    The tiles of a window start at its left and top, row by row, and may reach beyond its ends.

    Args:
        windows: `[N, 4]`.
        side: of a tile, px.
    """
    left, top, columns, rows = windows.unbind(dim=1)
    columns, rows = (
        value.add(side - 1).div(side, rounding_mode="floor") for value in (columns, rows)
    )
    tiles = Pixels.of(
        torch.stack([torch.zeros_like(left), torch.zeros_like(top), columns, rows], 1)
    )
    return tiles.window, left[tiles.window] + side * tiles.x, top[tiles.window] + side * tiles.y


def tiled_index(windows: Tensor, side: int) -> Tensor:
    """Where the packed pixels of windows `[N, 4]` are in pictures `[T, side, side]` of their tiles.

    An index `[P]` into the T * side * side pixels of the tiles that `tile_windows` gives.
    """
    columns, rows = windows[:, 2:].add(side - 1).div(side, rounding_mode="floor").unbind(dim=1)
    first = (columns * rows).cumsum(0) - columns * rows
    pixels = Pixels.of(windows)
    x, y = pixels.x - windows[pixels.window, 0], pixels.y - windows[pixels.window, 1]
    column, row = (value.div(side, rounding_mode="floor") for value in (x, y))
    tile = first[pixels.window] + row * columns[pixels.window] + column
    return (tile * side + y - side * row) * side + x - side * column


def pack(sizes: list[tuple[int, int]], width: int, height: int) -> list[tuple[int, int, int]]:
    """Places rectangles side by side on pages: for each its page, left and top.

    On shelves, the highest rectangles first; next to the best, and a sort and a loop.

    Args:
        sizes: width and height of each rectangle, none larger than a page.
        width: of a page.
        height: of a page.
    """
    places = [(0, 0, 0)] * len(sizes)
    page = x = y = shelf = 0
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index][1]):
        wide, high = sizes[index]
        if x + wide > width:
            x, y, shelf = 0, y + shelf, 0
        if y + high > height:
            page, x, y, shelf = page + 1, 0, 0, 0
        places[index] = (page, x, y)
        x, shelf = x + wide, max(shelf, high)
    return places

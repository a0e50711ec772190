"""What a network would see of the objects of a SceneSpec, and what it would not.

All of it is measured on pictures of the size that the network reads: how many pixels an object
changes, how much two classes differ, how much a turn shows. So colours, light and camera count as
they do in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from renderer.backend import Renderer, open_renderer
from renderer.camera import project
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec
from renderer.windows import object_boxes
from training.defaults import default_network
from training.dreams import generator_for

CHANGED = 0.04  # in any of R, G, B from 0 to 1: a pixel that differs by more shows something
SMALLEST = 24  # px that an object has to change where it is farthest, about 5 x 5
FAINT = 0.25  # share of an object's box that has to differ from the empty table
ALIKE = 0.06  # RMS difference of two classes over the pixels of either, in the best pair of turns
TURNS = 16  # of each object that are compared
UNSEEN_TURN = 0.02  # RMS difference, over its pixels, that a turn has to make to be seen
CROWDED = 0.05  # chance that random places do not overlap, below which scenes look arranged
BESIDE = 0.02  # share of objects whose middle may be beside the picture
SCENES = 512  # that are sampled to see which are


@dataclass(frozen=True)
class Sighting:
    """What there is to see of one class, in pictures as the network reads them."""

    name: str
    near: int  # px that it changes where it is nearest to the camera
    far: int  # px that it changes where it is farthest
    crop: Tensor  # [H, W, 3] uint8, of the picture around it in the middle of the table


@dataclass(frozen=True)
class Sightings:
    """All of it, and what to worry about."""

    classes: tuple[Sighting, ...]
    height: int  # px, of the network's input
    width: int  # px
    warnings: tuple[str, ...]


def look(spec: SceneSpec, *, backend: str = "auto") -> Sightings:
    """Looks at every class alone, and at sampled scenes.

    Args:
        spec: the world.
        backend: that draws.
    """
    network = default_network(spec)
    height, width = network.height, network.width
    renderer = open_renderer(spec, height=height, width=width, backend=backend, supersample=2)
    try:
        empty = renderer.render(_alone(spec, 0, (0.0, 0.0), 0.0, present=False))[0]
        found, warnings = [], []
        for c in range(len(spec.objects)):
            sighting, complaints = _seen(renderer, empty, c)
            found.append(sighting)
            warnings += complaints
        warnings += _likenesses(renderer, empty)
    finally:
        renderer.close()
    warnings += _room(spec) + _outside(spec, height, width)
    return Sightings(tuple(found), height, width, tuple(warnings))


def _alone(
    spec: SceneSpec, c: int, place: tuple[float, float], yaw: float, *, present: bool = True
) -> Scene:
    """One object of class `c`, seen from the middle of the camera's range."""
    scene = Scene.empty(1, spec.count.max)
    scene.presence[0, 0], scene.identity[0, 0] = present, c
    scene.position[0, 0], scene.yaw[0, 0] = torch.tensor(place), yaw
    scene.azimuth[0] = sum(spec.camera.azimuth_range) / 2
    return scene


def _changed(pictures: Tensor, empty: Tensor) -> Tensor:
    """Which pixels `[B, H, W]` of pictures `[B, 3, H, W]` are not those of the empty table."""
    return (pictures - empty).abs().amax(1) > CHANGED


def _seen(renderer: Renderer, empty: Tensor, c: int) -> tuple[Sighting, list[str]]:
    spec, name = renderer.spec, renderer.spec.objects[c].name
    (x, y), azimuth = spec.placement.extent, sum(spec.camera.azimuth_range) / 2
    # From the camera's side of the table to the other, and the middle.
    away = (-math.sin(azimuth), math.cos(azimuth))
    reach = min(x / max(abs(away[0]), 1e-9), y / max(abs(away[1]), 1e-9))
    places = [(-reach * away[0], -reach * away[1]), (0.0, 0.0), (reach * away[0], reach * away[1])]
    scene = Scene.cat([_alone(spec, c, place, 0.4) for place in places])
    pictures = renderer.render(scene)
    changed = _changed(pictures, empty).sum((1, 2)).tolist()
    boxes = object_boxes(spec, scene, renderer.height, renderer.width)[:, 0]
    inside = torch.tensor([renderer.width, renderer.height])
    sides = (boxes[:, 2:].minimum(inside) - boxes[:, :2].clamp_min(0)).clamp_min(0)
    areas = sides.prod(1).tolist()
    warnings = []
    if changed[1] < FAINT * areas[1] and areas[1] > SMALLEST:
        warnings.append(
            f"{name}: hardly differs from the table ({changed[1]} of some {areas[1]:.0f} pixels "
            "do); give it or the table another `colour`"
        )
    elif changed[2] < SMALLEST:
        warnings.append(
            f"{name}: too small to be seen: at the far side of the table it changes "
            f"{changed[2]} of the {renderer.width} x {renderer.height} pixels that the network "
            "reads; move the camera closer (camera.distance, placement.extent), or leave out "
            "larger objects"
        )
    order = spec.symmetry_orders[c]
    if order != 0 and not warnings:
        shown = _turn_shows(renderer, empty, c, math.pi / order)
        if shown < UNSEEN_TURN:
            warnings.append(
                f"{name}: how it is turned can hardly be seen ({shown:.3f} of the brightness, RMS, "
                "by half a period): its yaw will be answered with a wide deviation; set "
                "`symmetry: continuous` if it is nearly round, or move the camera closer"
            )
    return Sighting(name, changed[0], changed[2], _crop(pictures[1], boxes[1])), warnings


def _crop(picture: Tensor, box: Tensor) -> Tensor:
    """The square of a picture `[3, H, W]` around a box, with some of the table: bytes."""
    height, width = picture.shape[1:]
    side = min(height, width, int(1.5 * float((box[2:] - box[:2]).max())) + 6)
    left = int(((box[0] + box[2]) / 2 - side / 2).clamp(0, width - side))
    top = int(((box[1] + box[3]) / 2 - side / 2).clamp(0, height - side))
    part = picture[:, top : top + side, left : left + side]
    return part.mul(255).round().byte().permute(1, 2, 0)


def _turn_shows(renderer: Renderer, empty: Tensor, c: int, angle: float) -> float:
    """RMS difference that a turn makes, over what of the object there is to see."""
    scene = Scene.cat([_alone(renderer.spec, c, (0.0, 0.0), yaw) for yaw in (0.4, 0.4 + angle)])
    pictures = renderer.render(scene)
    either = _changed(pictures, empty).any(0)
    return _difference(pictures[:1], pictures[1:], either[None])


def _difference(one: Tensor, other: Tensor, where: Tensor) -> float:
    """The least RMS difference of any picture of `one` to any of `other`, `[B, 3, H, W]` each.

    Over the pixels `[B, H, W]` in which there is something to compare.
    """
    squares = (one - other).square().mean(1)
    share = (squares * where).sum((1, 2)) / where.sum((1, 2)).clamp_min(1)
    return float(share.min().sqrt())


def _likenesses(renderer: Renderer, empty: Tensor) -> list[str]:
    """Pairs of classes of which some turn of one looks like some turn of the other."""
    spec = renderer.spec
    yaws = [2 * math.pi * turn / TURNS for turn in range(TURNS)]
    pictures = [
        renderer.render(Scene.cat([_alone(spec, c, (0.0, 0.0), yaw) for yaw in yaws]))
        for c in range(len(spec.objects))
    ]
    masks = [_changed(found, empty) for found in pictures]
    warnings = []
    for one, other in combinations(range(len(pictures)), 2):
        least = math.inf
        for turn in range(0, TURNS, 4):  # of one; the other is turned all the way round
            where = masks[one][turn] | masks[other]
            least = min(least, _difference(pictures[one][turn : turn + 1], pictures[other], where))
        if least < ALIKE:
            names = f"{spec.objects[one].name} and {spec.objects[other].name}"
            warnings.append(
                f"{names}: look alike at the network's resolution (they differ by {least:.3f}, "
                f"RMS, where they are most alike): it will take them for each other; give one "
                "another `colour`, move the camera closer, or make them one class"
            )
    return warnings


def _room(spec: SceneSpec) -> list[str]:
    chance = spec.acceptances[-1]
    if chance >= CROWDED:
        return []
    return [
        f"count.max: {spec.count.max} objects find room on the table in {chance:.1%} of random "
        "placements only: scenes will look arranged, and be slow to draw; lower count.max, or "
        "enlarge placement.extent and table.half_size"
    ]


def _outside(spec: SceneSpec, height: int, width: int) -> list[str]:
    """Whether objects stand where the camera does not see them."""
    scene = sample(spec, SCENES, generator=generator_for("sightings", 0))
    heights = torch.tensor([geometry.height for geometry in spec.geometries])
    middle = torch.cat([scene.position, heights[scene.identity][..., None] / 2], dim=-1)
    pixels = project(spec.camera, scene.azimuth, middle, height, width)[scene.presence]
    beside = ((pixels < 0) | (pixels > torch.tensor([width, height]))).any(1)
    share = float(beside.float().mean())
    if share <= BESIDE:
        return []
    return [
        f"camera: {share:.0%} of the objects stand where their middle is beside the picture; move "
        "the camera back (camera.distance), or make placement.extent smaller"
    ]

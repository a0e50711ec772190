"""What else an image could show, where the inferred scene leaves some of it unexplained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from inference.likelihood import blurred
from renderer.camera import camera_pose, focal_length, principal_point, project
from renderer.scene import Scene
from renderer.spec import SceneSpec

BLUR = 1.0  # px, of differences: neither noise nor the way in which edges are drawn is an object
BLOCK = 9  # px, side of the part of a picture that is looked at by itself
STRIDE = 3  # px from one to the next
MEDIAN = 2.366  # of the sum of three squared standard normals
SPREAD = 500.0  # times its variance: what the noise of a block's blurred values may add up to
LEFT_OPEN = 0.012  # squared grey levels of 1 in a block: less shows nothing worth a look

TURNS = 8  # yaws that are tried for a full turn
NUDGE = 0.35  # rad to both sides, of what has come to rest beside its best turn
SIDES = 4  # directions in which one object is split into two
APART = 0.8  # of an object's radius, by which each of the two is moved

BEAM = 4  # hypotheses that are followed up
ALIKE = 2  # of a family, at most
CLOSEST = 0.5  # of the smaller radius: objects do not stand closer than that, middle to middle


class Doubt(NamedTuple):
    """How much of an image its picture leaves unexplained, and where most of it."""

    excess: Tensor  # [B] squared differences in the worst block beyond what noise makes; 0 if none
    place: Tensor  # [B, 2] px, its middle


def doubts(image: Tensor, picture: Tensor) -> Doubt:
    """Compares images `[B, 3, H, W]` with pictures, block by block."""
    errors = blurred(image - picture, BLUR).square().sum(dim=1, keepdim=True)
    noise = errors.flatten(1).median(dim=1).values / MEDIAN
    side = min(BLOCK, *image.shape[-2:])
    blocks = side * side * avg_pool2d(errors, side, STRIDE)[:, 0]  # [B, h, w]
    worst, index = blocks.flatten(1).max(dim=1)
    column, row = index % blocks.shape[2], index // blocks.shape[2]
    middle = torch.stack([column, row], dim=1) * STRIDE + side / 2
    return Doubt((worst - SPREAD * noise - LEFT_OPEN).clamp_min(0.0), middle)


class Hypotheses(NamedTuple):
    """R scenes that one image might show instead."""

    scenes: Scene
    changed: Tensor  # [R, K] bool, the slots that differ from the scene that is in doubt
    family: Tensor  # [R] int64; those of one are alike but for a yaw or a side


def alternatives(
    spec: SceneSpec, scene: Scene, next_one: Scene, place: Tensor, height: int, width: int
) -> Hypotheses | None:
    """Other scenes for one image; None when there is nothing else that it could be.

    Objects near `place` are turned, of other classes, absent, or two of their class. Where there is
    room for one more, it stands where the network would put one, or at `place`.

    Args:
        spec: the world.
        scene: the one scene that is in doubt.
        next_one: the same with one object more, as the network has it; or the same.
        place: `[2]` px, where most is unexplained.
        height: of the image, px.
        width: of the image, px.
    """
    found = _Found(scene)
    count, room = int(scene.count[0]), scene.slots > int(scene.count[0])
    for slot in _near(spec, scene, place, height, width):
        own = int(scene.identity[0, slot])
        for c in range(len(spec.objects)):
            yaws = _yaws(spec, c, float(scene.yaw[0, slot]))
            for yaw in yaws[1:] if c == own else yaws:
                found.add((slot, c), slot, _with(scene, slot, c, scene.position[0, slot], yaw))
            for nudge in (-NUDGE, NUDGE) if c == own and len(yaws) > 1 else ():
                one = _with(scene, slot, c, scene.position[0, slot], yaws[0] + nudge)
                found.add((slot, "nudged"), slot, one)
        found.add((slot, "none"), slot, _without(scene, slot))
        if room:
            for one in _split(spec, scene, slot, count):
                found.add((slot, "two"), slot, one, count)
    if not room:
        return found.all()
    if int(next_one.count[0]) > count:
        position, own = next_one.position[0, count], int(next_one.identity[0, count])
        for c in range(len(spec.objects)):
            yaws = _yaws(spec, c, float(next_one.yaw[0, count]))
            for yaw in yaws[:1] if c == own else yaws[::2]:
                found.add(("next", c), count, _with(scene, count, c, position, yaw))
    for c in range(len(spec.objects)):
        position = _below(spec, scene, c, place, height, width)
        for yaw in _yaws(spec, c, 0.0)[::2]:
            found.add(("here", c), count, _with(scene, count, c, position, yaw))
    return found.all()


def promising(errors: list[float], family: list[int]) -> list[int]:
    """Which of R hypotheses to follow up, by their errors: the least, not all of one family."""
    chosen: list[int] = []
    for index in sorted(range(len(errors)), key=errors.__getitem__):
        if sum(family[one] == family[index] for one in chosen) < ALIKE:
            chosen.append(index)
        if len(chosen) == BEAM:
            break
    return chosen


def stand_apart(spec: SceneSpec, scene: Scene) -> Tensor:
    """Which scenes, `[B]` bool, have no two objects in the same place, where they may not."""
    if not spec.placement.no_overlap:
        return torch.ones(len(scene), dtype=torch.bool, device=scene.azimuth.device)
    radii = scene.position.new_tensor([geometry.radius for geometry in spec.geometries])
    radius = radii[scene.identity.where(scene.presence, 0)]
    near = torch.minimum(radius[:, :, None], radius[:, None]) * CLOSEST
    both = scene.presence[:, :, None] & scene.presence[:, None]
    both = both & ~torch.eye(scene.slots, dtype=torch.bool, device=both.device)
    return ~((torch.cdist(scene.position, scene.position) < near) & both).any(dim=(1, 2))


class _Found:
    """Hypotheses one by one."""

    def __init__(self, scene: Scene) -> None:
        self.slots = scene.slots
        self.scenes: list[Scene] = []
        self.changed: list[Tensor] = []
        self.family: list[int] = []
        self.names: dict[object, int] = {}

    def add(self, family: object, slot: int, scene: Scene, *more: int) -> None:
        changed = torch.zeros(self.slots, dtype=torch.bool)
        changed[[slot, *more]] = True
        self.scenes.append(scene)
        self.changed.append(changed)
        self.family.append(self.names.setdefault(family, len(self.names)))

    def all(self) -> Hypotheses | None:
        if not self.scenes:
            return None
        return Hypotheses(
            Scene.cat(self.scenes), torch.stack(self.changed), torch.tensor(self.family)
        )


def _yaws(spec: SceneSpec, c: int, yaw: float) -> list[float]:
    """Yaws that look different, the given one first."""
    order = spec.symmetry_orders[c]
    turns = max(1, TURNS // order) if order else 1
    return [yaw + 2 * math.pi / max(1, order) * turn / turns for turn in range(turns)]


def _near(spec: SceneSpec, scene: Scene, place: Tensor, height: int, width: int) -> list[int]:
    """Slots of objects that may have to do with what is seen at `place`."""
    heights = torch.tensor([geometry.height for geometry in spec.geometries])
    radii = torch.tensor([geometry.radius for geometry in spec.geometries])
    identity = scene.identity[0].where(scene.presence[0], 0)
    middle = torch.cat([scene.position[0], 0.5 * heights[identity][:, None]], dim=1)
    seen = project(spec.camera, scene.azimuth, middle[None], height, width)[0]
    pixel = 2 * spec.camera.distance * math.tan(math.radians(spec.camera.fovy_deg) / 2) / height
    reach = 1.5 * radii[identity] / pixel + BLOCK
    near = ((seen - place).norm(dim=1) < reach) & scene.presence[0]
    return near.nonzero()[:, 0].tolist()


def _with(scene: Scene, slot: int, c: int, position: Tensor, yaw: float) -> Scene:
    """The scene with that object in `slot`."""
    presence, identity, places, yaws = (
        value.clone() for value in (scene.presence, scene.identity, scene.position, scene.yaw)
    )
    presence[0, slot], identity[0, slot], places[0, slot], yaws[0, slot] = True, c, position, yaw
    return Scene(presence, identity, places, yaws, scene.azimuth)


def _without(scene: Scene, slot: int) -> Scene:
    presence = scene.presence.clone()
    presence[0, slot] = False
    return replace(scene, presence=presence)


def _split(spec: SceneSpec, scene: Scene, slot: int, free: int) -> list[Scene]:
    """Two objects where there is one, side by side, in a few directions."""
    c = int(scene.identity[0, slot])
    yaw, position = float(scene.yaw[0, slot]), scene.position[0, slot]
    found = []
    for side in range(SIDES):
        angle = math.pi * side / SIDES
        away = (
            APART
            * spec.geometries[c].radius
            * position.new_tensor([math.cos(angle), math.sin(angle)])
        )
        for turned in (0.0, math.pi):
            one = _with(scene, slot, c, position + away, yaw)
            found.append(_with(one, free, c, position - away, yaw + turned))
    return found


def _below(spec: SceneSpec, scene: Scene, c: int, place: Tensor, height: int, width: int) -> Tensor:
    """Where an object of class `c` stands, `[2]` m, whose middle is seen at `place` px."""
    camera = spec.camera
    position, axes = (value[0] for value in camera_pose(camera, scene.azimuth))
    focal, (middle, centre) = focal_length(camera, height), principal_point(camera, height, width)
    right, up = (place[0] - middle) / focal, (centre - place[1]) / focal
    ray = axes @ torch.stack([right, up, -torch.ones_like(up)])
    fall = (position[2] - 0.5 * spec.geometries[c].height) / (-ray[2]).clamp_min(1e-3)
    reach = position.new_tensor(spec.placement.extent)
    return (position[:2] + fall * ray[:2]).clamp(-reach, reach)

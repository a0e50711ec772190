"""The prior over scenes that a SceneSpec describes: sampling and log density."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from renderer.placement import draw_identities, draw_poses, overlaps
from renderer.scene import Scene
from renderer.spec import SceneSpec


def sample(spec: SceneSpec, n: int, *, generator: torch.Generator | None = None) -> Scene:
    """Draws `n` scenes from the prior.

    The number of objects comes first; classes, positions and yaws are then drawn independently
    and, where objects may not overlap, drawn anew as a whole until they do not (section 2: a
    distribution over counts, then the objects of the scene).

    Args:
        spec: the world.
        n: how many scenes.
        generator: of random numbers; torch's own when not given.
    """
    counts = torch.multinomial(
        torch.tensor(spec.count.distribution), n, replacement=True, generator=generator
    )
    scene = Scene.empty(n, spec.count.max)
    scene.presence[:] = torch.arange(spec.count.max) < counts[:, None]
    for count in counts.unique().tolist():
        rows = (counts == count).nonzero()[:, 0]
        identity, position, yaw = _draw_objects(spec, count, len(rows), generator)
        scene.identity[rows, :count] = identity
        scene.position[rows, :count] = position
        scene.yaw[rows, :count] = yaw
    least, greatest = spec.camera.azimuth_range
    scene.azimuth[:] = least + (greatest - least) * torch.rand(n, generator=generator)
    return scene


def _draw_objects(
    spec: SceneSpec, count: int, scenes: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Classes, positions and yaws of exactly `count` objects in each of `scenes` scenes."""
    identity = torch.zeros(scenes, count, dtype=torch.int64)
    position, yaw = torch.zeros(scenes, count, 2), torch.zeros(scenes, count)
    open_rows = torch.arange(scenes)
    while count and len(open_rows):
        rows, place = len(open_rows), spec.placement
        identity[open_rows] = draw_identities(
            count, rows, len(spec.objects), place.repeats, generator
        )
        position[open_rows], yaw[open_rows] = draw_poses(count, rows, place.extent, generator)
        if not place.no_overlap:
            break
        collision = overlaps(
            spec.footprints,
            torch.ones(rows, count, dtype=torch.bool),
            identity[open_rows],
            position[open_rows],
            yaw[open_rows],
        )
        open_rows = open_rows[collision]
    return identity, position, yaw


def log_prob(spec: SceneSpec, scene: Scene) -> Tensor:
    """Log density of scenes under the prior, `[B]`; -inf where the prior never goes.

    With respect to counting measure on count and classes and Lebesgue measure (m, rad) on
    position, yaw and azimuth; a camera that does not move has density 1 where it stands. Objects
    are exchangeable: the density of one ordering, the same for all.
    """
    device = scene.azimuth.device
    count, presence = scene.count, scene.presence
    unary = torch.arange(scene.slots, device=device) < count[:, None]
    valid = (presence == unary).all(dim=1) & (count <= spec.count.max)
    known = count.clamp_max(spec.count.max)
    result = torch.tensor(spec.count.distribution, device=device).log()[known]

    classes = len(spec.objects)
    if spec.placement.repeats:
        identity = -count * math.log(classes)
    else:
        ways = [math.lgamma(classes - n + 1) for n in range(spec.count.max + 1)]
        identity = torch.tensor(ways, device=device)[known] - math.lgamma(classes + 1)
        pairs = (scene.identity[:, :, None] == scene.identity[:, None]) & presence[:, :, None]
        pairs = pairs & presence[:, None]
        valid &= pairs.sum(dim=(1, 2)) == count
    result = result + identity
    in_range = (scene.identity >= 0) & (scene.identity < classes)
    valid &= (in_range | ~presence).all(dim=1)

    extent = torch.tensor(spec.placement.extent, device=device)
    area = 4 * spec.placement.extent[0] * spec.placement.extent[1]
    result = result - count * math.log(area * 2 * math.pi)
    valid &= ((scene.position.abs() <= extent).all(dim=2) | ~presence).all(dim=1)
    if spec.placement.no_overlap:
        result = result - torch.tensor(spec.acceptances, device=device).log()[known]
        footprints, known_class = spec.footprints.to(device), scene.identity.clamp(0, classes - 1)
        valid &= ~overlaps(footprints, presence, known_class, scene.position, scene.yaw)

    least, greatest = spec.camera.azimuth_range
    if spec.camera.moves:
        result = result - math.log(greatest - least)
    valid &= (scene.azimuth >= least - 1e-6) & (scene.azimuth <= greatest + 1e-6)
    return result.masked_fill(~valid, -math.inf)

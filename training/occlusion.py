"""How much of each object a camera sees, and from how far."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from renderer.backend import Renderer
from renderer.camera import camera_pose
from renderer.scene import Scene
from renderer.spec import SceneSpec

SHOWS = 2.5 / 255  # difference in any colour from which on a pixel shows an object
CHUNK = 64  # scenes a pass


def visible_shares(renderer: Renderer, scene: Scene) -> Tensor:
    """Which part of each object's pixels is seen past the others, `[B, K]`; nan of absent ones.

    Pixels that change when the object goes, over those that change when it goes and was alone.
    """
    parts = [
        _shares(renderer, scene[start : start + CHUNK]) for start in range(0, len(scene), CHUNK)
    ]
    return torch.cat(parts)


def _shares(renderer: Renderer, scene: Scene) -> Tensor:
    nothing = torch.zeros_like(scene.presence)
    whole, table = renderer.render(scene), renderer.render(replace(scene, presence=nothing))
    shares = torch.full(scene.presence.shape, torch.nan)
    for k in range(scene.slots):
        there = scene.presence[:, k]
        if not bool(there.any()):
            continue
        rows = scene[there]
        only = torch.arange(scene.slots) == k
        alone = _pixels(_render(renderer, rows, rows.presence & only), table[there])
        seen = _pixels(whole[there], _render(renderer, rows, rows.presence & ~only))
        shares[there, k] = (seen / alone.clamp_min(1.0)).clamp_max(1.0)
    return shares


def distances(spec: SceneSpec, scene: Scene) -> Tensor:
    """From the camera to where each object stands, `[B, K]` m."""
    position, _ = camera_pose(spec.camera, scene.azimuth)
    places = torch.nn.functional.pad(scene.position, (0, 1))
    return (places - position[:, None]).norm(dim=-1)


def _render(renderer: Renderer, scene: Scene, presence: Tensor) -> Tensor:
    """Pictures of some of the objects: they have to come first."""
    order = (~presence).int().argsort(dim=1, stable=True)
    return renderer.render(replace(scene, presence=presence).permute_slots(order))


def _pixels(one: Tensor, other: Tensor) -> Tensor:
    """How many pixels differ, `[R]`."""
    return ((one - other).abs().amax(dim=1) > SHOWS).float().sum(dim=(1, 2))

"""Where the objects of a scene lie in the picture: upright boxes around their outlines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import trimesh
from torch import Tensor

from inference.images import Rectangle
from renderer.camera import camera_pose, project, rotation_z
from renderer.scene import Scene
from renderer.spec import SceneSpec

# Points in front of the camera by less than this, in m, have no place in the picture.
NEAREST = 1e-3
CIRCLE = 64  # points that stand for a circle; their polygon is 0.1 % smaller


def outline(spec: SceneSpec, identity: int) -> Tensor:
    """Points `[N, 3]` m, in the object's frame, around which its outline lies from anywhere."""
    item, geometry = spec.objects[identity], spec.geometries[identity]
    if geometry.mesh is not None:
        # Seen from any side, the outline's box is that of the convex hull.
        return torch.tensor(geometry.mesh.convex_hull.vertices, dtype=torch.float32)
    lower, upper = torch.tensor(geometry.lower), torch.tensor(geometry.upper)
    if item.shape == "sphere":
        ball = trimesh.creation.icosphere(subdivisions=3, radius=float(upper[0]))
        points = torch.tensor(ball.vertices, dtype=torch.float32)
        return points + (lower + upper) / 2
    if item.shape == "cylinder":
        angle = torch.arange(CIRCLE) * (2 * math.pi / CIRCLE)
        circle = float(upper[0]) * torch.stack([angle.cos(), angle.sin()], dim=1)
        rims = [torch.full((CIRCLE, 1), float(corner[2])) for corner in (lower, upper)]
        return torch.cat([torch.cat([circle, z], dim=1) for z in rims])
    return torch.cartesian_prod(*torch.stack([lower, upper], dim=1))


def outlines(spec: SceneSpec) -> Tensor:
    """`outline` of each class, `[C, N, 3]` m; shorter ones repeat a point."""
    found = [outline(spec, c) for c in range(len(spec.objects))]
    longest = max(len(points) for points in found)
    return torch.stack(
        [torch.cat([points, points[-1:].expand(longest - len(points), 3)]) for points in found]
    )


def image_boxes(
    spec: SceneSpec,
    scene: Scene,
    outlines: Tensor,
    *,
    shape: tuple[int, int],
    crops: Sequence[Rectangle],
    originals: Sequence[tuple[int, int]],
) -> list[list[Rectangle]]:
    """Boxes in the original pictures around the present objects of each scene.

    A box is around the whole object, whether or not something hides a part of it, and is cut off
    at the picture's edge; an object beyond the edge has a box of width or height 0.

    Args:
        spec: the world.
        scene: B scenes.
        outlines: of the spec, `[C, N, 3]` m.
        shape: height and width of the network's picture, px.
        crops: what of each original that picture shows.
        originals: width and height of each original, px.
    """
    height, width = shape
    b, k = scene.presence.nonzero(as_tuple=True)  # [M] objects
    position, axes = camera_pose(spec.camera, scene.azimuth)
    points = outlines[scene.identity[b, k]] @ rotation_z(scene.yaw[b, k]).transpose(1, 2)
    points[..., :2] += scene.position[b, k][:, None]
    away = ((position[b, None] - points) @ axes[b, :, 2:])[..., 0]
    in_front = (away > NEAREST)[..., None]  # [M, N, 1]
    crop = torch.tensor(crops).reshape(-1, 4)[b]
    scale = crop[:, 2:] / torch.tensor([width, height])
    pixels = project(spec.camera, scene.azimuth[b], points, height, width)
    pixels = crop[:, None, :2] + scale[:, None] * pixels
    limit = torch.tensor(originals, dtype=pixels.dtype).reshape(-1, 2)[b]
    least = pixels.where(in_front, math.inf).amin(1).clamp_min(0.0).minimum(limit)
    greatest = pixels.where(in_front, -math.inf).amax(1).clamp_min(0.0).minimum(limit)
    # Nothing of it in front of the camera: a box of nothing.
    least = least.where(in_front.any(1), 0.0)
    boxes: list[list[Rectangle]] = [[] for _ in crops]
    corners = torch.cat([least, greatest - least], dim=1).tolist()
    for picture, corner in zip(b.tolist(), corners, strict=True):
        boxes[picture].append(Rectangle(*corner))
    return boxes

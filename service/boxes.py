"""Where the objects of a scene lie in the picture: upright boxes around their outlines."""

from __future__ import annotations

import math

import torch
import trimesh
from torch import Tensor

from renderer.camera import camera_pose, project, rotation_z
from renderer.scene import Scene
from renderer.spec import SceneSpec
from service.images import Rectangle

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


def image_boxes(
    spec: SceneSpec,
    scene: Scene,
    outlines: list[Tensor],
    *,
    shape: tuple[int, int],
    crop: Rectangle,
    original: tuple[int, int],
) -> list[Rectangle]:
    """Boxes in the original picture around the present objects of one scene.

    A box is around the whole object, whether or not something hides a part of it, and is cut off
    at the picture's edge; an object beyond the edge has a box of width or height 0.

    Args:
        spec: the world.
        scene: a batch of one.
        outlines: `outline` of each class.
        shape: height and width of the network's picture, px.
        crop: what of the original that picture shows.
        original: width and height of the original, px.
    """
    height, width = shape
    boxes = []
    position, axes = camera_pose(spec.camera, scene.azimuth)
    for k in range(int(scene.count[0])):
        points = outlines[int(scene.identity[0, k])] @ rotation_z(scene.yaw[0, k]).T
        points = points + torch.cat([scene.position[0, k], torch.zeros(1)])
        in_front = (position[0] - points) @ axes[0, :, 2] > NEAREST
        seen = points[in_front]
        if not len(seen):
            boxes.append(Rectangle(0.0, 0.0, 0.0, 0.0))
            continue
        pixels = project(spec.camera, scene.azimuth, seen[None], height, width)[0]
        scale = torch.tensor([crop.width / width, crop.height / height])
        pixels = torch.tensor([crop.x, crop.y]) + scale * pixels
        limit = torch.tensor(original, dtype=pixels.dtype)
        least = pixels.amin(0).clamp_min(0.0).minimum(limit)
        greatest = pixels.amax(0).clamp_min(0.0).minimum(limit)
        boxes.append(Rectangle(*least.tolist(), *(greatest - least).tolist()))
    return boxes

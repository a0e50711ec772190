"""From scenes to their descriptions in the HTTP schema, and back."""

from __future__ import annotations

import math

import torch

from renderer import Scene, SceneSpec
from service.schemas import (
    DescribedAngle,
    DescribedCamera,
    DescribedObject,
    Pose,
    Quaternion,
    SceneDescription,
    Vector3,
)

# A quaternion whose length is this far from 1 is a mistake, not rounding.
LENGTH_TOLERANCE = 1e-2
# What may be left of x, y of a quaternion and of z of a position: objects stand on the table.
UPRIGHT_TOLERANCE = 1e-3


class DescriptionError(ValueError):
    """A description of no scene of this model; the message names the place and the mend."""


def describe_scenes(spec: SceneSpec, scenes: Scene) -> list[SceneDescription]:
    """One description a scene of a batch."""
    return [
        SceneDescription(
            camera=DescribedCamera(azimuth=DescribedAngle(value=float(scene.azimuth[0]))),
            objects=[
                DescribedObject(
                    class_id=spec.class_names[int(scene.identity[0, k])],
                    pose=_upright(scene.position[0, k].tolist(), float(scene.yaw[0, k])),
                )
                for k in range(int(scene.count[0]))
            ],
        )
        for scene in (scenes[b] for b in range(len(scenes)))
    ]


def scene_of(spec: SceneSpec, description: SceneDescription) -> Scene:
    """The described scene, a batch of one.

    Raises:
        DescriptionError: the model knows no such object, or cannot have it there.
    """
    count, slots = len(description.objects), spec.count.max
    if count > slots:
        raise DescriptionError(
            f"objects: there are {count}; this model's scenes have at most {slots}"
        )
    scene = Scene.empty(1, slots)
    for k, item in enumerate(description.objects):
        if item.class_id not in spec.class_names:
            raise DescriptionError(
                f"objects[{k}].class_id: this model knows no {item.class_id[:50]!r}; "
                f"it knows {', '.join(spec.class_names)}"
            )
        scene.presence[0, k] = True
        scene.identity[0, k] = spec.class_names.index(item.class_id)
        position = item.pose.position
        if abs(position.z) > UPRIGHT_TOLERANCE:
            raise DescriptionError(
                f"objects[{k}].pose.position.z: is {position.z:g} m; objects stand on the table, "
                "give 0"
            )
        scene.position[0, k] = torch.tensor([position.x, position.y])
        scene.yaw[0, k] = _yaw(item.pose.orientation, k)
    scene.azimuth[0] = description.camera.azimuth.value
    return scene


def _upright(position: list[float], yaw: float) -> Pose:
    return Pose(
        position=Vector3(x=position[0], y=position[1], z=0.0),
        orientation=Quaternion(x=0.0, y=0.0, z=math.sin(yaw / 2), w=math.cos(yaw / 2)),
    )


def _yaw(turn: Quaternion, k: int) -> float:
    """The angle of a turn about z."""
    length = math.hypot(turn.x, turn.y, turn.z, turn.w)
    if abs(length - 1.0) > LENGTH_TOLERANCE:
        raise DescriptionError(
            f"objects[{k}].pose.orientation: has length {length:g}; give a unit quaternion "
            "(x y z w)"
        )
    if math.hypot(turn.x, turn.y) > UPRIGHT_TOLERANCE:
        raise DescriptionError(
            f"objects[{k}].pose.orientation: is tilted; objects stand upright, give x and y 0, "
            "z sin(yaw / 2), w cos(yaw / 2)"
        )
    return 2.0 * math.atan2(turn.z, turn.w)

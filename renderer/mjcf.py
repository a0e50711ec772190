"""SceneSpec to one MuJoCo model that can show any of its scenes: K slots of every class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from renderer.camera import camera_pose, rotation_z
from renderer.geometry import ObjectGeometry
from renderer.meshes import mujoco_mesh_arrays
from renderer.scene import Scene
from renderer.spec import ObjectClass, SceneSpec, read_texture

TABLE_THICKNESS = 0.03  # m

# Where the geoms of classes that a slot does not show are kept: behind and below every camera.
HIDDEN = np.array([0.0, 0.0, -1e3])

# One soft light from the upper left of the table frame; the rest is ambient and a weak headlight,
# which both backends compute alike. Nothing is specular: OpenGL lights vertices, rays light pixels.
LIGHT_DIRECTION = (0.35, 0.45, -0.8)
LIGHT_DIFFUSE = 0.55
HEADLIGHT_DIFFUSE = 0.25
AMBIENT = 0.3

TABLE_MATERIAL = "table top"  # with a blank, which no class name has

_TYPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
}


@dataclass(frozen=True)
class SceneModel:
    """A compiled model and how the slots of a scene map to its geoms.

    Geom 0 is the table; geom `1 + k * C + c` is class c in slot k.
    """

    spec: SceneSpec
    model: mujoco.MjModel
    offset: NDArray[np.float64]  # [C, 3] m, from an object's origin to its geom's
    rotation: NDArray[np.float64]  # [C, 3, 3], from the geom's axes to the object's

    def geom_poses(self, scene: Scene) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Positions `[B, G, 3]` m and rotations `[B, G, 3, 3]` of every geom in every scene.

        Raises:
            ValueError: a present object is of no class of the spec.
        """
        batch, slots, classes = len(scene), scene.slots, len(self.spec.objects)
        table = self.model.geom_pos[:1]
        position = np.broadcast_to(HIDDEN, (batch, 1 + slots * classes, 3)).astype(np.float32)
        position[:, 0] = table
        rotation = np.zeros((batch, 1 + slots * classes, 3, 3), dtype=np.float32)
        rotation[:] = np.eye(3)
        b, k = scene.presence.cpu().nonzero(as_tuple=True)
        identity = scene.identity.cpu()[b, k].numpy()
        if ((identity < 0) | (identity >= classes)).any():
            raise ValueError(f"a scene has an object of a class outside 0 to {classes - 1}")
        geom = 1 + k.numpy() * classes + identity
        turn = rotation_z(scene.yaw.detach().cpu()[b, k].double()).numpy()
        origin = np.zeros((len(b), 3))
        origin[:, :2] = scene.position.detach().cpu()[b, k].numpy()
        position[b.numpy(), geom] = origin + np.einsum("nij,nj->ni", turn, self.offset[identity])
        rotation[b.numpy(), geom] = turn @ self.rotation[identity]
        return position, rotation

    def camera_poses(self, scene: Scene) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Positions `[B, 3]` m and axes `[B, 3, 3]` of the camera in every scene."""
        position, axes = camera_pose(self.spec.camera, scene.azimuth.detach().cpu().double())
        return position.numpy().astype(np.float32), axes.numpy().astype(np.float32)


def build_model(spec: SceneSpec, *, slots: int | None = None) -> SceneModel:
    """Compiles the model that shows the scenes of `spec`.

    Args:
        spec: the world.
        slots: K; the spec's greatest count when not given.
    """
    slots = slots or spec.count.max
    builder = new_model(spec)
    for item, geometry in zip(spec.objects, spec.geometries, strict=True):
        add_material(builder, spec, item.name, item.colour, item.texture)
        if geometry.mesh is not None:
            arrays = mujoco_mesh_arrays(geometry.mesh)
            mesh = builder.add_mesh(name=item.name, **arrays.spec_fields())
            mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
    for slot in range(slots):
        for item, geometry in zip(spec.objects, spec.geometries, strict=True):
            builder.worldbody.add_geom(
                name=f"{slot}.{item.name}",
                material=item.name,
                contype=0,
                conaffinity=0,
                **geom_shape(item, geometry),
            )
    model = builder.compile()
    first = slice(1, 1 + len(spec.objects))
    rotation = np.zeros((len(spec.objects), 9))
    for row, quaternion in zip(rotation, model.geom_quat[first], strict=True):
        mujoco.mju_quat2Mat(row, quaternion)
    return SceneModel(spec, model, model.geom_pos[first].copy(), rotation.reshape(-1, 3, 3))


def new_model(spec: SceneSpec) -> mujoco.MjSpec:
    """The light, a camera and the table of `spec`: all that every scene of it shares.

    The camera is where MuJoCo puts cameras; the table's is the only geom.
    """
    builder = mujoco.MjSpec()
    builder.modelname = spec.name
    _set_visuals(builder, spec)
    builder.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        dir=LIGHT_DIRECTION,
        pos=[0.0, 0.0, 3.0],
        diffuse=[LIGHT_DIFFUSE] * 3,
        specular=[0.0] * 3,
        ambient=[0.0] * 3,
        castshadow=False,
    )
    builder.worldbody.add_camera(name="camera", fovy=spec.camera.fovy_deg)
    add_material(builder, spec, TABLE_MATERIAL, spec.table.colour, spec.table.texture)
    builder.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[*spec.table.half_size, TABLE_THICKNESS / 2],
        pos=[0.0, 0.0, -TABLE_THICKNESS / 2],
        material=TABLE_MATERIAL,
    )
    return builder


def geom_shape(item: ObjectClass, geometry: ObjectGeometry) -> dict[str, Any]:
    """What `add_geom` has to be told of a class's shape; its mesh has the class's name."""
    if item.shape is None:
        return {"type": mujoco.mjtGeom.mjGEOM_MESH, "meshname": item.name}
    return {
        "type": _TYPES[item.shape],
        "size": [*(item.size or ()), 0.0, 0.0][:3],
        "pos": [0.0, 0.0, geometry.height / 2],
    }


def _set_visuals(builder: mujoco.MjSpec, spec: SceneSpec) -> None:
    visual = builder.visual
    visual.headlight.ambient = [AMBIENT] * 3
    visual.headlight.diffuse = [HEADLIGHT_DIFFUSE] * 3
    visual.headlight.specular = [0.0] * 3
    builder.stat.extent = spec.camera.distance
    builder.stat.center = [0.0, 0.0, 0.0]
    visual.map.znear = 0.02
    visual.map.zfar = 20.0
    if any(spec.background):  # OpenGL clears to black; another colour is a sky of that colour
        # MuJoCo cuts off to bytes: half of one more makes that rounding.
        colour = [min(value + 0.5 / 255, 1.0) for value in spec.background]
        builder.add_texture(
            name="background",
            type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
            rgb1=colour,
            rgb2=colour,
            width=8,
            height=48,
        )


def add_material(
    builder: mujoco.MjSpec,
    spec: SceneSpec,
    name: str,
    colour: tuple[float, float, float],
    texture: Path | None,
) -> None:
    """A dull material of a colour, with the picture in `texture` laid over it."""
    material = builder.add_material(name=name, rgba=[*colour, 1.0], specular=0.0, shininess=0.0)
    if texture is None:
        return
    pixels = read_texture(spec.resolve(texture))
    picture = builder.add_texture(
        name=name,
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        height=pixels.shape[0],
        width=pixels.shape[1],
        nchannel=3,
    )
    picture.data = pixels.tobytes()
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


def slots_of(scene: Scene, slots: int) -> Scene:
    """The scene with exactly `slots` slots, padded with absent ones.

    Raises:
        ValueError: an object is present beyond the last slot.
    """
    if scene.slots == slots:
        return scene
    if scene.slots > slots:
        if bool(scene.presence[:, slots:].any()):
            raise ValueError(
                f"a scene has {int(scene.count.max())} objects, this renderer shows {slots}; "
                "raise count.max in the SceneSpec"
            )
        cut = (slice(None), slice(slots))
        return Scene(
            scene.presence[cut],
            scene.identity[cut],
            scene.position[cut],
            scene.yaw[cut],
            scene.azimuth,
        )
    padding = Scene.empty(len(scene), slots - scene.slots).to(scene.azimuth.device)
    return Scene(
        torch.cat([scene.presence, padding.presence], dim=1),
        torch.cat([scene.identity, padding.identity], dim=1),
        torch.cat([scene.position, padding.position.to(scene.position)], dim=1),
        torch.cat([scene.yaw, padding.yaw.to(scene.yaw)], dim=1),
        scene.azimuth,
    )

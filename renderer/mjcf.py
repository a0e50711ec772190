"""SceneSpec to one MuJoCo model that can show any of its scenes: K slots of every class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from renderer.appearance import Appearance
from renderer.camera import camera_pose, rotation_z
from renderer.detail import simplified
from renderer.geometry import ObjectGeometry
from renderer.light import AMBIENT, HEADLIGHT_DIFFUSE, LIGHT_DIFFUSE, LIGHT_DIRECTION
from renderer.meshes import mujoco_mesh_arrays
from renderer.scene import Scene
from renderer.spec import ObjectClass, SceneSpec, read_texture

TABLE_THICKNESS = 0.03  # m

# Where the geoms of classes that a slot does not show are kept: behind and below every camera.
HIDDEN = (0.0, 0.0, -1e3)  # m

TABLE_MATERIAL = "table top"  # with a blank, which no class name has

_TYPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
}


@dataclass(frozen=True)
class SceneModel:
    """A compiled model and how the slots of a scene map to its geoms.

    Geom 0 is the table; geom `1 + k * C + c` is class c in slot k. A pose is 3 x 4: the position,
    m, then the rotation. All tensors, and the scenes whose poses are asked for, on one device.
    """

    spec: SceneSpec
    model: mujoco.MjModel
    rest: Tensor  # [G, 3, 4] float32, of the geoms while no object is present
    shape: Tensor  # [C, 3, 4] float64, of a class's geom in the object's frame
    view: Tensor  # [3, 4] float64, of the camera at azimuth 0, its position from its target
    target: Tensor  # [3] float64, m, of the camera

    def to(self, device: torch.device | str) -> SceneModel:
        """The same for scenes on `device`."""
        tensors = {name: getattr(self, name).to(device) for name in _TENSORS}
        return replace(self, **tensors)

    @torch.no_grad()
    def object_poses(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """Positions `[B, K, 3]` m and rotations `[B, K, 3, 3]` of the geom that each slot shows.

        float32. Those of empty slots have no meaning. Waits for the device once, to see whether
        all classes are known.

        Raises:
            ValueError: a present object is of no class of the spec.
        """
        _check_classes(scene, len(self.spec.objects))
        placed = self._placed(scene, scene.identity.where(scene.presence, 0))
        return placed[..., 0], placed[..., 1:]

    @torch.no_grad()
    def geom_poses(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """Positions `[B, G, 3]` m and rotations `[B, G, 3, 3]` of every geom in every scene.

        float32. Waits for the device once, to see whether all classes are known.

        Raises:
            ValueError: a present object is of no class of the spec.
        """
        batch, slots, classes = len(scene), scene.slots, len(self.spec.objects)
        _check_classes(scene, classes)
        # What absent slots hold may be anything, and leads to nothing.
        identity = scene.identity.where(scene.presence, 0)
        placed = self._placed(scene, identity).where(scene.presence[..., None, None], self.rest[1])
        poses = self.rest.repeat(batch, 1, 1, 1)
        index = identity[..., None, None, None].expand(batch, slots, 1, 3, 4)
        poses[:, 1:].unflatten(1, (slots, classes)).scatter_(2, index, placed[:, :, None])
        return poses[..., 0], poses[..., 1:]

    def _placed(self, scene: Scene, identity: Tensor) -> Tensor:
        """Poses `[B, K, 3, 4]` float32 of the geoms of classes `identity` `[B, K]` in each slot."""
        placed = rotation_z(scene.yaw.double()) @ self.shape[identity]
        placed[..., :2, 0] += scene.position
        return placed.float()

    @torch.no_grad()
    def camera_poses(
        self, scene: Scene, appearance: Appearance | None = None
    ) -> tuple[Tensor, Tensor]:
        """Positions `[B, 3]` m and axes `[B, 3, 3]` of the camera in every scene, float32."""
        if appearance is not None:
            target = self.spec.camera.target
            position, axes = appearance.camera_poses(target, scene.azimuth.double())
            return position.float(), axes.float()
        poses = rotation_z(scene.azimuth.double()) @ self.view
        return (poses[..., 0] + self.target).float(), poses[..., 1:].float()


_TENSORS = ("rest", "shape", "view", "target")


def _check_classes(scene: Scene, classes: int) -> None:
    known = (scene.identity >= 0) & (scene.identity < classes)
    if not bool((known | ~scene.presence).all()):
        raise ValueError(f"a scene has an object of a class outside 0 to {classes - 1}")


def build_model(
    spec: SceneSpec,
    *,
    slots: int | None = None,
    tolerance: float = 0.0,
    lamps: bool = False,
) -> SceneModel:
    """Compiles the model that shows the scenes of `spec`.

    Args:
        spec: the world.
        slots: K; the spec's greatest count when not given.
        tolerance: m, how far meshes may be off in order to have fewer triangles. Those with a
            texture stay as they are: a seam of theirs would not survive.
        lamps: whether the headlight is a lamp like the other, the second one, that can be told
            where it shines and how strongly.
    """
    slots = slots or spec.count.max
    builder = new_model(spec)
    if lamps:
        builder.visual.headlight.active = 0
        _add_lamp(builder, (0.0, 0.0, -1.0), HEADLIGHT_DIFFUSE)
    for item, geometry in zip(spec.objects, spec.geometries, strict=True):
        add_material(builder, spec, item.name, item.colour, item.texture)
        if geometry.mesh is not None:
            coarse = tolerance > 0 and item.texture is None
            arrays = mujoco_mesh_arrays(
                simplified(geometry.mesh, tolerance) if coarse else geometry.mesh
            )
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
    return _scene_model(spec, builder.compile())


def new_model(spec: SceneSpec) -> mujoco.MjSpec:
    """The light, a camera and the table of `spec`: all that every scene of it shares.

    The camera is where MuJoCo puts cameras; the table's is the only geom.
    """
    builder = mujoco.MjSpec()
    builder.modelname = spec.name
    _set_visuals(builder, spec)
    _add_lamp(builder, LIGHT_DIRECTION, LIGHT_DIFFUSE)
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


def _add_lamp(
    builder: mujoco.MjSpec, direction: tuple[float, float, float], diffuse: float
) -> None:
    builder.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        dir=direction,
        pos=[0.0, 0.0, 3.0],
        diffuse=[diffuse] * 3,
        specular=[0.0] * 3,
        ambient=[0.0] * 3,
        castshadow=False,
    )


def geom_shape(item: ObjectClass, geometry: ObjectGeometry) -> dict[str, Any]:
    """What `add_geom` has to be told of a class's shape; its mesh has the class's name."""
    if item.shape is None:
        return {"type": mujoco.mjtGeom.mjGEOM_MESH, "meshname": item.name}
    return {
        "type": _TYPES[item.shape],
        "size": [*(item.size or ()), 0.0, 0.0][:3],
        "pos": [0.0, 0.0, geometry.height / 2],
    }


def _scene_model(spec: SceneSpec, model: mujoco.MjModel) -> SceneModel:
    """The model with the poses that it was compiled with, as tensors on the CPU."""
    classes = len(spec.objects)
    rotation = np.zeros((classes, 9))
    for row, quaternion in zip(rotation, model.geom_quat[1 : 1 + classes], strict=True):
        mujoco.mju_quat2Mat(row, quaternion)
    offset = torch.from_numpy(model.geom_pos[1 : 1 + classes].copy())
    rest = torch.eye(3, 4).roll(1, dims=1).repeat(model.ngeom, 1, 1)
    rest[0, :, 0], rest[1:, :, 0] = torch.from_numpy(model.geom_pos[0]), torch.tensor(HIDDEN)
    target = torch.tensor(spec.camera.target, dtype=torch.float64)
    position, axes = camera_pose(spec.camera, torch.zeros(1, dtype=torch.float64))
    return SceneModel(
        spec,
        model,
        rest=rest,
        shape=_poses(offset, torch.from_numpy(rotation).view(-1, 3, 3)),
        view=_poses(position - target, axes)[0],
        target=target,
    )


def _poses(position: Tensor, rotation: Tensor) -> Tensor:
    """Poses `[N, 3, 4]` of positions `[N, 3]` and rotations `[N, 3, 3]`."""
    return torch.cat([position[..., None], rotation], dim=-1)


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
    more = slots - scene.slots
    return Scene(
        pad(scene.presence, (0, more)),
        pad(scene.identity, (0, more)),
        pad(scene.position, (0, 0, 0, more)),
        pad(scene.yaw, (0, more)),
        scene.azimuth,
    )

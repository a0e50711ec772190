"""One scene as a stand-alone MuJoCo model: a text that needs no other file, and simulates.

It looks as the renderer draws it, and every object can be pushed, grasped and dropped: each has a
free joint, a mass and shapes to collide with.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import QhullError
from scipy.spatial.transform import Rotation

from renderer.camera import camera_pose, focal_length
from renderer.geometry import ObjectGeometry
from renderer.meshes import mujoco_mesh_arrays
from renderer.mjcf import add_material, geom_shape, new_model
from renderer.scene import Scene
from renderer.spec import Camera, ObjectClass, SceneSpec, read_texture

# A SceneSpec says nothing of weights. This is MuJoCo's own default, between wood and china.
DENSITY = 1000.0  # kg/m^3
# A mesh that encloses no volume is taken for a wall this thick.
WALL = 0.003  # m

# Two inferred objects that reach into each other by more than this do not collide: the solver
# would throw them apart, which is no way to begin a simulation. Less is settled gently.
OVERLAP = 0.003  # m

SENSOR_ROWS = 1000  # px, of a camera whose axis is beside the middle
SEEN, FELT = 2, 3  # geom groups, as MuJoCo's viewer shows and hides them


def scene_mjcf(spec: SceneSpec, scene: Scene, *, density: float = DENSITY) -> str:
    """The MJCF text of one scene.

    Bodies are named `cup-0`, `pan-1`, …: the class, and the place in the scene. Meshes are written
    into the text. Pictures cannot be: what has a texture has its mean colour instead. Objects
    collide as the convex hulls of their parts, so a cup is solid inside. A camera whose axis is
    beside the middle of its picture is one with a sensor, which has an aspect of its own.

    Args:
        spec: the world.
        scene: a batch of one.
        density: of all objects, kg/m^3.

    Raises:
        ValueError: the scene is not one, or an object is of no class of the spec.
    """
    if len(scene) != 1:
        raise ValueError(f"a model shows one scene, not {len(scene)}; give scenes[i]")
    plain = _plain(spec)
    builder = new_model(plain)
    builder.comment = "Metres, radians, kilograms. The origin is the centre of the table top."
    builder.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    position, axes = camera_pose(spec.camera, scene.azimuth.double())
    camera = builder.camera("camera")
    camera.pos = position[0].numpy()
    camera.quat = Rotation.from_matrix(axes[0].numpy()).as_quat(scalar_first=True)
    if spec.camera.principal != (0.0, 0.0):
        _add_sensor(camera, spec.camera)
    shown = scene.identity[0][scene.presence[0]].tolist()
    for identity in sorted(set(shown)):
        if not 0 <= identity < len(plain.objects):
            raise ValueError(
                f"the scene has an object of a class outside 0 to {len(spec.objects) - 1}"
            )
        _add_class(builder, plain, plain.objects[identity], spec.geometries[identity])
    for k, identity in enumerate(shown):
        item, geometry = plain.objects[identity], spec.geometries[identity]
        yaw = float(scene.yaw[0, k])
        body = builder.worldbody.add_body(
            name=f"{item.name}-{k}",
            pos=[*scene.position[0, k].tolist(), 0.0],
            quat=[np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)],
        )
        body.add_freejoint()
        _add_geoms(body, item, geometry, density)
    _separate(builder)
    return str(builder.to_xml())


def _add_sensor(camera: Any, known: Camera) -> None:
    """The lens of a camera as MuJoCo wants it where the axis is beside the picture's middle."""
    right, down = known.principal
    camera.sensor_size = [known.aspect, 1.0]  # m: only what it is to the others matters
    camera.resolution = [round(SENSOR_ROWS * known.aspect), SENSOR_ROWS]
    camera.focal_length = [focal_length(known, 1)] * 2
    camera.principal_length = [-right, -down]  # MuJoCo's own: from the axis to the middle


def _plain(spec: SceneSpec) -> SceneSpec:
    """The spec with mean colours in the place of textures."""

    def mean(part: Any) -> Any:
        if part.texture is None:
            return part
        picture = read_texture(spec.resolve(part.texture)) / 255.0
        colour = np.asarray(part.colour) * picture.mean(axis=(0, 1))
        return part.model_copy(update={"texture": None, "colour": tuple(colour.tolist())})

    objects = tuple(mean(item) for item in spec.objects)
    return spec.model_copy(update={"table": mean(spec.table), "objects": objects})


def _add_class(
    builder: mujoco.MjSpec, spec: SceneSpec, item: ObjectClass, geometry: ObjectGeometry
) -> None:
    """The material and the meshes of one class: one to see, the others to collide with."""
    add_material(builder, spec, item.name, item.colour, None)
    if geometry.mesh is None:
        return
    arrays = mujoco_mesh_arrays(geometry.mesh)
    mesh = builder.add_mesh(
        name=item.name,
        uservert=arrays.vertices.reshape(-1),
        userface=arrays.faces.reshape(-1),
        usernormal=arrays.normals.reshape(-1),
    )
    inertia = mujoco.mjtMeshInertia
    solid = geometry.mesh.is_volume
    mesh.inertia = inertia.mjMESH_INERTIA_EXACT if solid else inertia.mjMESH_INERTIA_SHELL
    for n, hull in enumerate(convex_parts(geometry)):
        builder.add_mesh(
            name=_part(item, n),
            uservert=np.asarray(hull.vertices).reshape(-1),
            userface=np.asarray(hull.faces, dtype=np.int32).reshape(-1),
        )


def _add_geoms(body: Any, item: ObjectClass, geometry: ObjectGeometry, density: float) -> None:
    """One geom that is seen and weighs, and those that collide; a shape is both at once."""
    shape = geom_shape(item, geometry)
    if geometry.mesh is None:
        body.add_geom(material=item.name, density=density, **shape)
        return
    mesh = geometry.mesh
    mass = density * float(mesh.volume if mesh.is_volume else WALL * mesh.area)
    body.add_geom(material=item.name, mass=mass, contype=0, conaffinity=0, group=SEEN, **shape)
    for n in range(len(convex_parts(geometry))):
        shape["meshname"] = _part(item, n)
        body.add_geom(mass=0.0, group=FELT, rgba=[0.5, 0.5, 0.5, 0.3], **shape)


def _part(item: ObjectClass, n: int) -> str:
    return f"{item.name} part {n}"  # with blanks, which no class name has


def convex_parts(geometry: ObjectGeometry) -> list[trimesh.Trimesh]:
    """Convex bodies that together hold all of a mesh's surface: one for each footprint disc.

    The hull of a whole pan would reach far beside its handle; the discs tell its body and its
    handle apart. A part too flat for a hull of its own is joined to the largest.
    """
    mesh = geometry.mesh
    assert mesh is not None
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    discs = geometry.footprint.double().numpy()  # [P, 3], the largest first
    centres = np.asarray(mesh.triangles_center)[:, :2]
    gaps = np.linalg.norm(centres[:, None] - discs[None, :, :2], axis=-1) - discs[:, 2]
    owner = np.where(gaps[:, 0] <= 0, 0, gaps.argmin(axis=1))
    hulls, rest = [], [vertices[faces[owner == 0].reshape(-1)]]
    for n in range(1, len(discs)):
        points = vertices[faces[owner == n].reshape(-1)]
        hull = _hull(points)
        if hull is None:
            rest.append(points)
        else:
            hulls.append(hull)
    largest = _hull(np.concatenate(rest))
    return [largest, *hulls] if largest is not None else [mesh.convex_hull]


def _hull(points: NDArray[np.float64]) -> trimesh.Trimesh | None:
    """The convex hull of points `[N, 3]`; None when they lie in a plane, or nearly so."""
    points = np.unique(points, axis=0)
    try:
        hull = trimesh.convex.convex_hull(points) if len(points) > 3 else None
    except QhullError:
        return None
    # MuJoCo refuses meshes of less volume.
    return hull if hull is not None and hull.volume > 1e-9 else None


def _separate(builder: mujoco.MjSpec) -> None:
    """Lets objects that reach into each other by more than OVERLAP pass through each other."""
    model = builder.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    deep = set()
    for contact in data.contact[: data.ncon]:
        first, second = sorted(model.geom_bodyid[contact.geom])
        if first and contact.dist < -OVERLAP:  # body 0 is the table
            deep.add((model.body(first).name, model.body(second).name))
    for one, other in sorted(deep):
        builder.add_exclude(bodyname1=one, bodyname2=other)

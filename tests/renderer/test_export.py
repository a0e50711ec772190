"""A scene as a MuJoCo model of its own: it opens anywhere, looks the same, and simulates."""

import mujoco
import numpy as np
import pytest
import torch
import trimesh

from renderer import Scene, SceneSpec
from renderer.camera import camera_pose, project
from renderer.export import convex_parts, scene_mjcf
from renderer.mjcf import build_model
from renderer.prior import sample


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("tabletop")


def make_scene(*objects: tuple[int, float, float, float], azimuth: float = 0.0) -> Scene:
    """One scene of (class, x, y, yaw)."""
    identity, x, y, yaw = (torch.tensor(column) for column in zip(*objects, strict=True))
    return Scene(
        torch.ones(1, len(objects), dtype=torch.bool),
        identity[None],
        torch.stack([x, y], dim=1)[None],
        yaw[None],
        torch.tensor([azimuth]),
    )


def simulate(text: str, seconds: float = 1.0) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The model in the text, opened with no other file at hand, after some time."""
    model = mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(model)
    while data.time < seconds:
        mujoco.mj_step(model, data)
    return model, data


def check_rests(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """That every object stands where it stood, upright, and still."""
    start = model.qpos0.reshape(-1, 7)
    moved = data.qpos.reshape(-1, 7)
    assert np.abs(moved[:, :3] - start[:, :3]).max() < 1e-3
    assert np.abs((moved[:, 3:] * start[:, 3:]).sum(axis=1)).min() > np.cos(np.radians(0.5))
    assert np.abs(data.qvel).max() < 1e-2


def test_objects_rest_on_the_table(spec: SceneSpec) -> None:
    scenes = sample(spec, 24, generator=torch.Generator().manual_seed(0))
    full = scenes[scenes.count > 1]
    assert len(full) > 5
    for scene in full:
        model, data = simulate(scene_mjcf(spec, scene))
        assert model.nbody == 1 + int(scene.count[0])
        check_rests(model, data)


def test_shapes_rest_on_the_table() -> None:
    spec = SceneSpec.load("objects")
    for identity in range(len(spec.objects)):
        model, data = simulate(scene_mjcf(spec, make_scene((identity, 0.1, -0.1, 0.7))))
        check_rests(model, data)


def test_an_empty_table(spec: SceneSpec) -> None:
    model, _ = simulate(scene_mjcf(spec, Scene.empty(1, 3)))
    assert (model.nbody, model.ngeom, model.ncam, model.nlight) == (1, 1, 1, 1)


def test_objects_fall_without_the_table(spec: SceneSpec) -> None:
    """They are held up by the table alone, and beside it nothing holds them."""
    _, data = simulate(scene_mjcf(spec, make_scene((0, 2.0, 0.0, 0.0))))
    assert data.qpos[2] < -4.0


def test_looks_as_the_renderer_draws_it(spec: SceneSpec) -> None:
    """The seen geoms and the camera have the poses that the renderer gives them."""
    scene = make_scene((1, 0.2, -0.1, 0.9), (0, -0.2, 0.15, -2.0), (2, 0.2, 0.25, 0.0), azimuth=0.4)
    drawn = build_model(spec)
    positions, rotations = (pose.numpy() for pose in drawn.geom_poses(scene))
    model = mujoco.MjModel.from_xml_string(scene_mjcf(spec, scene))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    for k, identity in enumerate(scene.identity[0].tolist()):
        body = model.body(f"{spec.class_names[identity]}-{k}")
        seen = int(body.geomadr[0])
        assert model.geom_contype[seen] == 0
        slot = 1 + k * len(spec.objects) + identity
        mine, theirs = (
            (points @ axes.reshape(3, 3).T + centre)
            for points, axes, centre in (
                (vertices(model, seen), data.geom_xmat[seen], data.geom_xpos[seen]),
                (vertices(drawn.model, slot), rotations[0, slot], positions[0, slot]),
            )
        )
        assert np.abs(mine - theirs).max() < 1e-4
        assert np.allclose(
            model.mat(int(model.geom_matid[seen])).rgba[:3], spec.objects[identity].colour
        )
    position, axes = camera_pose(spec.camera, scene.azimuth.double())
    assert np.allclose(data.cam_xpos[0], position[0], atol=1e-4)
    assert np.allclose(data.cam_xmat[0].reshape(3, 3), axes[0], atol=1e-4)
    assert model.cam_fovy[0] == spec.camera.fovy_deg


def test_a_camera_whose_axis_is_beside_the_middle_sees_the_same(spec: SceneSpec) -> None:
    """Points of the table fall on the pixels of `project`, by the frustum that MuJoCo makes."""
    camera = spec.camera.model_copy(
        update={"principal": (0.1, -0.07), "aspect": 1.25, "roll_deg": 10.0}
    )
    odd = spec.model_copy(update={"camera": camera})
    scene = make_scene((1, 0.2, -0.1, 0.9), azimuth=0.3)
    model, data = simulate(scene_mjcf(odd, scene), seconds=0.0)
    mujoco.mj_forward(model, data)
    seen = mujoco.MjvScene(model, maxgeom=20)
    view = mujoco.MjvCamera()
    view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    everything = mujoco.mjtCatBit.mjCAT_ALL
    mujoco.mjv_updateScene(
        model, data, mujoco.MjvOption(), mujoco.MjvPerturb(), view, everything, seen
    )
    frustum = seen.camera[0]
    points = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.2, 0.1], [-0.25, 0.3, 0.0]])
    local = (points.double().numpy() - data.cam_xpos[0]) @ data.cam_xmat[0].reshape(3, 3)
    on_sheet = frustum.frustum_near * local[:, :2] / -local[:, 2:]
    height, width = 400, 500
    x = (on_sheet[:, 0] - frustum.frustum_center) / frustum.frustum_width  # from -1 to 1
    tall = frustum.frustum_top - frustum.frustum_bottom
    y = (frustum.frustum_top - on_sheet[:, 1]) / tall  # from 0 at the top to 1
    expected = project(camera, scene.azimuth, points[None], height, width)[0]
    assert np.allclose((x + 1) / 2 * width, expected[:, 0], atol=0.1)
    assert np.allclose(y * height, expected[:, 1], atol=0.1)


def vertices(model: mujoco.MjModel, geom: int) -> np.ndarray:
    mesh = int(model.geom_dataid[geom])
    first = model.mesh_vertadr[mesh]
    return model.mesh_vert[first : first + model.mesh_vertnum[mesh]].astype(float)


def test_objects_that_touch_settle_and_those_inside_each_other_stay(spec: SceneSpec) -> None:
    touching = make_scene((0, 0.0, 0.0, 2.0), (0, 0.093, 0.0, -2.0))
    model, data = simulate(scene_mjcf(spec, touching))
    assert model.nexclude == 0
    assert np.abs(data.qpos.reshape(-1, 7)[:, :3] - model.qpos0.reshape(-1, 7)[:, :3]).max() < 5e-3
    inside = make_scene((0, 0.0, 0.0, 0.0), (0, 0.02, 0.0, 1.0), (2, 0.35, 0.0, 0.0))
    model, data = simulate(scene_mjcf(spec, inside))
    assert model.nexclude == 1
    check_rests(model, data)


def test_parts_hold_the_mesh_and_leave_the_ground_beside_a_handle(spec: SceneSpec) -> None:
    for geometry in spec.geometries:
        assert geometry.mesh is not None
        parts = convex_parts(geometry)
        # How far each vertex lies outside of each convex part, above its farthest face.
        outside = [
            ((geometry.mesh.vertices[:, None] - part.triangles_center) * part.face_normals)
            .sum(-1)
            .max(axis=1)
            for part in parts
        ]
        assert np.min(outside, axis=0).max() < 1e-6
    pan = spec.geometries[spec.class_names.index("pan")]
    assert pan.mesh is not None
    whole, parts = pan.mesh.convex_hull.volume, convex_parts(pan)
    assert sum(part.volume for part in parts) < 0.8 * whole


def test_weighs_what_its_material_does(spec: SceneSpec) -> None:
    scene = make_scene((0, 0.0, 0.0, 0.0))
    model = mujoco.MjModel.from_xml_string(scene_mjcf(spec, scene, density=2400.0))
    assert spec.geometries[0].mesh is not None
    assert model.body_mass[1] == pytest.approx(2400.0 * spec.geometries[0].mesh.volume, rel=1e-4)


def test_a_surface_that_encloses_nothing_weighs_as_a_wall(tmp_path) -> None:
    bowl = trimesh.creation.icosphere(subdivisions=2, radius=0.05)
    bowl.update_faces(bowl.triangles_center[:, 2] < 0.0)
    bowl.export(tmp_path / "bowl.stl")
    (tmp_path / "bowls.yaml").write_text(
        "name: bowls\ntable: {half_size: [0.5, 0.5], colour: [1, 1, 1]}\n"
        "camera: {distance: 1.5, elevation_deg: 40, fovy_deg: 45, azimuth_deg: [0, 0]}\n"
        "objects: [{name: bowl, mesh: bowl.stl, colour: [1, 0, 0]}]\n"
        "count: {max: 1}\nplacement: {extent: [0.3, 0.3]}\nbackground: [0.2, 0.3, 0.4]\n"
    )
    spec = SceneSpec.load(tmp_path / "bowls.yaml")
    model, data = simulate(scene_mjcf(spec, make_scene((0, 0.0, 0.0, 0.0))))
    assert model.body_mass[1] == pytest.approx(1000.0 * 0.003 * 2 * np.pi * 0.05**2, rel=0.1)
    assert (model.body_inertia[1] > 0).all()
    assert abs(data.qpos[2]) < 2e-3


def test_a_texture_becomes_its_mean_colour(tmp_path) -> None:
    from PIL import Image

    picture = Image.new("RGB", (2, 1))
    picture.putpixel((0, 0), (255, 0, 0))
    picture.putpixel((1, 0), (255, 255, 0))
    picture.save(tmp_path / "flag.png")
    (tmp_path / "boxes.yaml").write_text(
        "name: boxes\ntable: {half_size: [0.5, 0.5], colour: [1, 1, 1]}\n"
        "camera: {distance: 1.5, elevation_deg: 40, fovy_deg: 45, azimuth_deg: [0, 0]}\n"
        "objects: [{name: box, shape: box, size: [0.1, 0.1, 0.1], colour: [0.5, 1, 1],"
        " texture: flag.png}]\ncount: {max: 1}\nplacement: {extent: [0.3, 0.3]}\n"
    )
    spec = SceneSpec.load(tmp_path / "boxes.yaml")
    model = mujoco.MjModel.from_xml_string(scene_mjcf(spec, make_scene((0, 0.0, 0.0, 0.0))))
    assert np.allclose(model.mat("box").rgba, [0.5, 0.5, 0.0, 1.0])


def test_refuses_what_is_not_one_scene_of_the_spec(spec: SceneSpec) -> None:
    with pytest.raises(ValueError, match=r"give scenes\[i\]"):
        scene_mjcf(spec, Scene.empty(2, 3))
    with pytest.raises(ValueError, match="outside 0 to 2"):
        scene_mjcf(spec, make_scene((3, 0.0, 0.0, 0.0)))

"""The MuJoCo model of a spec, and where a scene puts its geoms."""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from renderer import Scene, SceneSpec
from renderer.camera import camera_pose, rotation_z
from renderer.mjcf import HIDDEN, build_model, slots_of
from renderer.prior import sample

World = dict[str, Any]


@pytest.fixture(scope="module")
def tabletop() -> SceneSpec:
    return SceneSpec.load("tabletop")


@pytest.mark.parametrize(("slots", "expected"), [(None, 3), (1, 1), (5, 5)])
def test_model_has_every_class_in_every_slot(
    tabletop: SceneSpec, slots: int | None, expected: int
) -> None:
    model = build_model(tabletop, slots=slots).model
    names = [model.geom(index).name for index in range(model.ngeom)]
    classes = tabletop.class_names
    assert names == ["table"] + [f"{k}.{c}" for k in range(expected) for c in classes]


def test_table_top_is_at_zero(tabletop: SceneSpec) -> None:
    table = build_model(tabletop).model.geom("table")
    assert table.pos[2] + table.size[2] == pytest.approx(0)
    assert table.size[:2].tolist() == list(tabletop.table.half_size)


def test_meshes_land_where_the_scene_says(tabletop: SceneSpec) -> None:
    # MuJoCo moves a mesh to its own centre and axes; geom_poses has to undo that.
    built = build_model(tabletop)
    scene = Scene.empty(1, 3)
    scene.presence[:] = True
    scene.identity[:] = torch.tensor([2, 0, 1])
    scene.position[:] = torch.tensor([[0.1, 0.2], [-0.3, 0.0], [0.0, -0.2]])
    scene.yaw[:] = torch.tensor([0.3, -2.0, 1.0])
    position, rotation = (value.numpy() for value in built.geom_poses(scene))
    for slot, c in enumerate([2, 0, 1]):
        mesh = built.model.mesh(tabletop.class_names[c])
        first, count = int(mesh.vertadr[0]), int(mesh.vertnum[0])
        vertices = built.model.mesh_vert[first : first + count]
        geom = 1 + slot * 3 + c
        found = vertices @ rotation[0, geom].T + position[0, geom]
        cos, sin = math.cos(scene.yaw[0, slot]), math.sin(scene.yaw[0, slot])
        original = tabletop.geometries[c].mesh
        assert original is not None
        turned = original.vertices @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        expected = turned + np.array([*scene.position[0, slot].tolist(), 0])
        for low, high in ((found.min(0), expected.min(0)), (found.max(0), expected.max(0))):
            np.testing.assert_allclose(low, high, atol=1e-5)


def test_shapes_stand_on_the_table(world: World) -> None:
    built = build_model(SceneSpec.build(world))
    scene = Scene.empty(1, 2)
    scene.presence[0, 0], scene.identity[0, 0] = True, 1
    scene.position[0, 0] = torch.tensor([0.1, -0.2])
    position = built.geom_poses(scene)[0].numpy()
    np.testing.assert_allclose(position[0, 2], [0.1, -0.2, 0.1], atol=1e-6)
    np.testing.assert_allclose(position[0, [1, 3, 4]], np.tile(HIDDEN, (3, 1)))


def test_table_stays_and_absent_things_are_out_of_sight(tabletop: SceneSpec) -> None:
    built = build_model(tabletop)
    scene = sample(tabletop, 50, generator=torch.Generator().manual_seed(0))
    position = built.geom_poses(scene)[0].numpy()
    np.testing.assert_allclose(position[:, 0], np.tile(built.model.geom_pos[0], (50, 1)))
    shown = (position[:, 1:, 2] > -1).sum(axis=1)
    assert shown.tolist() == scene.count.tolist()


@pytest.mark.parametrize("name", ["tabletop", "objects"])
def test_poses_are_those_of_one_object_after_the_other(name: str) -> None:
    spec = SceneSpec.load(name)
    built = build_model(spec)
    scene = sample(spec, 40, generator=torch.Generator().manual_seed(1))
    absent = ~scene.presence  # what these hold has no meaning
    scene.identity[absent], scene.yaw[absent], scene.position[absent] = 99, math.nan, 1e3
    position, rotation = built.geom_poses(scene)
    camera, axes = built.camera_poses(scene)
    classes = len(spec.objects)
    for b in range(len(scene)):
        expected = {0: (built.model.geom_pos[0], np.eye(3))}
        for k in range(int(scene.count[b])):
            geom = 1 + k * classes + int(scene.identity[b, k])
            turn = rotation_z(scene.yaw[b, k].double()).numpy()
            frame = np.zeros(9)
            mujoco.mju_quat2Mat(frame, built.model.geom_quat[geom])
            offset = turn @ built.model.geom_pos[geom]
            place = offset + np.array([*scene.position[b, k].tolist(), 0.0])
            expected[geom] = (place, turn @ frame.reshape(3, 3))
        for geom in range(built.model.ngeom):
            place, turned = expected.get(geom, (np.array(HIDDEN), np.eye(3)))
            np.testing.assert_allclose(position[b, geom].numpy(), place, atol=1e-7)
            np.testing.assert_allclose(rotation[b, geom].numpy(), turned, atol=1e-7)
    exact, exact_axes = camera_pose(spec.camera, scene.azimuth.double())
    torch.testing.assert_close(camera, exact.float(), atol=2e-7, rtol=0)
    torch.testing.assert_close(axes, exact_axes.float(), atol=1e-7, rtol=0)
    assert {value.dtype for value in (position, rotation, camera, axes)} == {torch.float32}


@pytest.mark.parametrize("identity", [-1, 3])
def test_a_class_that_is_not_there_is_refused(tabletop: SceneSpec, identity: int) -> None:
    scene = Scene.empty(1, 3)
    scene.identity[:] = identity
    build_model(tabletop).geom_poses(scene)  # absent: no matter
    scene.presence[0, 0] = True
    with pytest.raises(ValueError, match="class outside 0 to 2"):
        build_model(tabletop).geom_poses(scene)


def test_any_name_will_do_for_a_class(world: World) -> None:
    world["objects"][0]["name"], world["objects"][1]["name"] = "table", "0.table"
    model = build_model(SceneSpec.build(world)).model
    assert model.geom("table").matid[0] != model.geom("0.table").matid[0]


def test_slots_are_added_and_left_out(tabletop: SceneSpec) -> None:
    scene = sample(tabletop, 20, generator=torch.Generator().manual_seed(0))
    assert slots_of(scene, 3) is scene
    more = slots_of(scene, 5)
    assert more.slots == 5 and torch.equal(more.count, scene.count)
    back = slots_of(more, 3)
    assert all(torch.equal(a, b) for a, b in zip(back.tensors(), scene.tensors(), strict=True))
    with pytest.raises(ValueError, match=r"has 3 objects, this renderer shows 2; raise count\.max"):
        slots_of(scene, 2)

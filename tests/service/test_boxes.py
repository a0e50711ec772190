import math

import pytest
import torch

from renderer import Scene, SceneSpec, open_renderer
from renderer.prior import sample
from service.boxes import image_boxes, outline
from service.images import Rectangle

SIDE = 256


@pytest.fixture(scope="module", params=["crockery", "shapes"])
def world(request: pytest.FixtureRequest, spec: SceneSpec) -> SceneSpec:
    if request.param == "crockery":
        return spec
    shapes = [
        {"name": "box", "shape": "box", "size": [0.1, 0.05, 0.04], "colour": [0, 0, 1]},
        {"name": "ball", "shape": "sphere", "size": [0.09], "colour": [0, 1, 1]},
        {"name": "tin", "shape": "cylinder", "size": [0.06, 0.1], "colour": [0, 1, 0]},
    ]
    data = spec.model_dump(mode="json") | {"objects": shapes}
    return SceneSpec.build(data)


def one_object(spec: SceneSpec, identity: int, *, count: int) -> Scene:
    """`count` scenes with one object of a class, anywhere, seen from anywhere."""
    generator = torch.Generator().manual_seed(identity)
    scene = sample(spec, 8 * count, generator=generator)
    scene = scene[scene.count > 0][:count]
    presence = torch.zeros_like(scene.presence)
    presence[:, 0] = True
    return Scene(
        presence,
        torch.full_like(scene.identity, identity),
        scene.position,
        scene.yaw,
        scene.azimuth,
    )


def without_objects(scene: Scene) -> Scene:
    return Scene(torch.zeros_like(scene.presence), *list(scene.tensors())[1:])


@pytest.mark.parametrize("identity", range(3))
def test_box_is_tight_around_what_is_drawn(world: SceneSpec, identity: int) -> None:
    scene = one_object(world, identity, count=12)
    renderer = open_renderer(world, height=SIDE, width=SIDE)
    changed = (renderer.render(scene) - renderer.render(without_objects(scene))).abs().amax(
        1
    ) > 0.01
    outlines = [outline(world, c) for c in range(len(world.objects))]
    whole = Rectangle(0, 0, SIDE, SIDE)
    for b in range(len(scene)):
        (box,) = image_boxes(
            world, scene[b], outlines, shape=(SIDE, SIDE), crop=whole, original=(SIDE, SIDE)
        )
        rows, columns = changed[b].nonzero(as_tuple=True)
        drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        given = (box.x, box.y, box.x + box.width, box.y + box.height)
        for side, (seen, said) in enumerate(zip(drawn, given, strict=True)):
            outwards = (seen - said) if side < 2 else (said - seen)
            assert -1 <= outwards <= 2, f"side {side}: drawn to {seen}, box to {said}"


def test_box_follows_crop_and_scale_and_stays_in_the_picture(spec: SceneSpec) -> None:
    scene = one_object(spec, 0, count=1)
    outlines = [outline(spec, c) for c in range(len(spec.objects))]
    whole = Rectangle(0, 0, 64, 64)
    (small,) = image_boxes(spec, scene, outlines, shape=(64, 64), crop=whole, original=(64, 64))
    crop = Rectangle(160, 0, 480, 480)  # of 800 x 480
    (large,) = image_boxes(spec, scene, outlines, shape=(64, 64), crop=crop, original=(800, 480))
    wanted = (160 + 7.5 * small.x, 7.5 * small.y, 7.5 * small.width, 7.5 * small.height)
    assert large == pytest.approx(wanted, abs=1e-3)
    # The crop is what the network sees, but the object may show beside it.
    far = Scene(
        scene.presence,
        scene.identity,
        torch.tensor([0.75, 0.0]).expand_as(scene.position),
        scene.yaw,
        torch.zeros(1),
    )
    (cut,) = image_boxes(spec, far, outlines, shape=(64, 64), crop=whole, original=(64, 64))
    assert cut.x + cut.width <= 64
    (beside,) = image_boxes(spec, far, outlines, shape=(64, 64), crop=crop, original=(800, 480))
    assert beside.x + beside.width > 640


def test_object_behind_the_camera_has_no_box(spec: SceneSpec) -> None:
    scene = one_object(spec, 0, count=1)
    behind = Scene(
        scene.presence,
        scene.identity,
        torch.tensor([0.0, -4.0]).expand_as(scene.position),
        scene.yaw,
        torch.zeros(1),
    )
    outlines = [outline(spec, c) for c in range(len(spec.objects))]
    whole = Rectangle(0, 0, 64, 64)
    (box,) = image_boxes(spec, behind, outlines, shape=(64, 64), crop=whole, original=(64, 64))
    assert box == Rectangle(0, 0, 0, 0)


def test_no_object_no_box(spec: SceneSpec) -> None:
    whole = Rectangle(0, 0, 64, 64)
    assert (
        image_boxes(spec, Scene.empty(1, 3), [], shape=(64, 64), crop=whole, original=(64, 64))
        == []
    )


def test_outline_of_a_turned_mesh_reaches_as_far_as_its_box(spec: SceneSpec) -> None:
    for identity, geometry in enumerate(spec.geometries):
        points = outline(spec, identity)
        assert points.amin(0).tolist() == pytest.approx(geometry.lower, abs=1e-6)
        assert points.amax(0).tolist() == pytest.approx(geometry.upper, abs=1e-6)
        assert math.isfinite(float(points.sum()))

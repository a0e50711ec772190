import math

import pytest
import torch

from inference.images import Rectangle
from renderer import Scene, SceneSpec, open_renderer
from renderer.prior import sample
from service.boxes import image_boxes, outline, outlines

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
    whole = Rectangle(0, 0, SIDE, SIDE)
    boxes = image_boxes(
        world,
        scene,
        outlines(world),
        shape=(SIDE, SIDE),
        crops=[whole] * len(scene),
        originals=[(SIDE, SIDE)] * len(scene),
    )
    for b, (box,) in enumerate(boxes):
        rows, columns = changed[b].nonzero(as_tuple=True)
        drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        given = (box.x, box.y, box.x + box.width, box.y + box.height)
        for side, (seen, said) in enumerate(zip(drawn, given, strict=True)):
            outwards = (seen - said) if side < 2 else (said - seen)
            assert -1 <= outwards <= 2, f"side {side}: drawn to {seen}, box to {said}"


def boxes_of(
    spec: SceneSpec, scene: Scene, crop: Rectangle, original: tuple[int, int]
) -> list[Rectangle]:
    """Those of one picture."""
    (boxes,) = image_boxes(
        spec, scene, outlines(spec), shape=(64, 64), crops=[crop], originals=[original]
    )
    return boxes


def test_box_follows_crop_and_scale_and_stays_in_the_picture(spec: SceneSpec) -> None:
    scene = one_object(spec, 0, count=1)
    whole = Rectangle(0, 0, 64, 64)
    (small,) = boxes_of(spec, scene, whole, (64, 64))
    crop = Rectangle(160, 0, 480, 480)  # of 800 x 480
    (large,) = boxes_of(spec, scene, crop, (800, 480))
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
    (cut,) = boxes_of(spec, far, whole, (64, 64))
    assert cut.x + cut.width <= 64
    (beside,) = boxes_of(spec, far, crop, (800, 480))
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
    whole = Rectangle(0, 0, 64, 64)
    (box,) = boxes_of(spec, behind, whole, (64, 64))
    assert box == Rectangle(0, 0, 0, 0)


def test_no_object_no_box(spec: SceneSpec) -> None:
    whole = Rectangle(0, 0, 64, 64)
    assert boxes_of(spec, Scene.empty(1, 3), whole, (64, 64)) == []


def test_each_picture_of_a_batch_has_the_boxes_that_it_has_alone(spec: SceneSpec) -> None:
    scene = sample(spec, 40, generator=torch.Generator().manual_seed(5))
    assert set(scene.count.tolist()) == {0, 1, 2, 3}
    crops = [Rectangle(0, 0, 64 + b, 64 + b) for b in range(40)]
    originals = [(64 + b, 80) for b in range(40)]
    together = image_boxes(
        spec, scene, outlines(spec), shape=(64, 64), crops=crops, originals=originals
    )
    for b, boxes in enumerate(together):
        alone = boxes_of(spec, scene[b], crops[b], originals[b])
        assert len(boxes) == len(alone) == int(scene.count[b])
        for box, wanted in zip(boxes, alone, strict=True):
            assert box == pytest.approx(wanted, abs=1e-3)


def test_outline_of_a_turned_mesh_reaches_as_far_as_its_box(spec: SceneSpec) -> None:
    for identity, geometry in enumerate(spec.geometries):
        points = outline(spec, identity)
        assert points.amin(0).tolist() == pytest.approx(geometry.lower, abs=1e-6)
        assert points.amax(0).tolist() == pytest.approx(geometry.upper, abs=1e-6)
        assert math.isfinite(float(points.sum()))

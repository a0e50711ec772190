import dataclasses
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from inference.checkpoint import Checkpoint, save_checkpoint
from inference.estimate import Estimate
from inference.images import Decoder, Picture
from inference.novelty import Limits
from inference.plain import PlainConfig, PlainPosterior
from renderer import Scene, open_renderer
from renderer.camera import project
from service.answers import UNIFORM, compose, describe, optical_pose, quaternion
from service.engine import SUPERSAMPLE, Engine, EngineError

Encode = Callable[..., bytes]


class Knows:
    """Stands for a network that infers one given scene."""

    def __init__(self, checkpoint: Checkpoint, scene: Scene, **changes: Tensor) -> None:
        self.config, slots = checkpoint.posterior.config, scene.slots
        classes = len(checkpoint.spec.objects)
        orders = torch.tensor(checkpoint.spec.symmetry_orders)[scene.identity]
        estimate = Estimate(
            scene=scene,
            count_probabilities=torch.eye(slots + 1)[scene.count],
            presence_probability=scene.presence.float() * 0.9,
            class_probabilities=torch.nn.functional.one_hot(scene.identity, classes) * 0.7 + 0.1,
            position_covariance=torch.tensor([[4e-4, 1e-4], [1e-4, 9e-4]]).expand(1, slots, 2, 2),
            yaw_std=torch.where(orders == 0, math.inf, 0.1),
            azimuth_std=torch.full((1,), 0.02),
        )
        self.estimate = dataclasses.replace(estimate, **changes)

    def infer(self, image: Tensor) -> Estimate:
        return self.estimate


def knowing(checkpoint: Checkpoint, scene: Scene, **changes: Tensor) -> Engine:
    known = Knows(checkpoint, scene, **changes)
    return Engine(dataclasses.replace(checkpoint, posterior=known))  # type: ignore[arg-type]


def draw(checkpoint: Checkpoint, scene: Scene) -> Tensor:
    renderer = open_renderer(checkpoint.spec, height=64, width=64, supersample=SUPERSAMPLE)
    return renderer.render(scene)[0]


@pytest.fixture
def engine(checkpoint: Checkpoint) -> Iterator[Engine]:
    engine = Engine(checkpoint)
    yield engine
    engine.close()


@pytest.fixture
def picture(photo: Image.Image, encode: Encode) -> Picture:
    return Decoder(64, 64).decode(encode(photo))


@pytest.fixture
def drawing(checkpoint: Checkpoint, scene: Scene, picture: Picture) -> Picture:
    """What the renderer itself draws at the network's size."""
    pixels = draw(checkpoint, scene)
    return dataclasses.replace(picture, pixels=pixels)


def test_the_true_scene_explains_its_picture(
    checkpoint: Checkpoint, scene: Scene, picture: Picture, drawing: Picture
) -> None:
    engine = knowing(checkpoint, scene)
    exact = engine.infer(drawing).quality
    assert exact.reconstruction_error == 0
    assert exact.explained == 1
    assert exact.in_distribution
    answer = engine.infer(picture)
    assert answer.quality.reconstruction_error < 2e-4
    assert answer.quality.explained > 0.9
    assert answer.warnings == ()


def test_a_wrong_scene_explains_less(
    checkpoint: Checkpoint, scene: Scene, drawing: Picture
) -> None:
    moved = dataclasses.replace(scene, position=-scene.position)
    quality = knowing(checkpoint, moved).infer(drawing).quality
    assert quality.reconstruction_error > 1e-3
    assert quality.explained < 0.5


def test_an_unseen_object_is_unexplained(
    checkpoint: Checkpoint, scene: Scene, drawing: Picture
) -> None:
    empty = dataclasses.replace(scene, presence=torch.zeros_like(scene.presence))
    engine = knowing(checkpoint, empty)
    seen = engine.infer(drawing).quality.explained
    assert 0.5 < seen < 0.99
    table = draw(checkpoint, empty)
    assert engine.infer(dataclasses.replace(drawing, pixels=table)).quality.explained == 1


def test_a_foreign_picture_is_not_trusted(
    checkpoint: Checkpoint, scene: Scene, drawing: Picture
) -> None:
    noise = dataclasses.replace(drawing, pixels=torch.rand(3, 64, 64))
    answer = knowing(checkpoint, scene).infer(noise)
    assert not answer.quality.in_distribution
    assert "do not trust" in answer.warnings[-1]


def test_an_older_checkpoint_may_bring_its_threshold(
    checkpoint: Checkpoint, scene: Scene, picture: Picture
) -> None:
    strict = checkpoint.config.model_copy(update={"quality": {"reconstruction_error": 1e-9}})
    answer = knowing(dataclasses.replace(checkpoint, config=strict), scene).infer(picture)
    assert not answer.quality.in_distribution


def test_limits_of_a_checkpoint_decide_what_is_novel(
    checkpoint: Checkpoint, scene: Scene, drawing: Picture
) -> None:
    limits = Limits(block=0.004, doubt=3.0)
    config = checkpoint.config.model_copy(update={"novelty": limits})
    knows = dataclasses.replace(checkpoint, config=config)
    quality = knowing(knows, scene).infer(drawing).quality
    assert quality.novelty == pytest.approx(0.0, abs=0.9) and quality.in_distribution
    foreign = drawing.pixels.clone()
    foreign[:, 30:36, 30:36] = torch.tensor([0.1, 0.9, 0.1])[:, None, None]
    answer = knowing(knows, scene).infer(dataclasses.replace(drawing, pixels=foreign))
    assert answer.quality.novelty is not None and answer.quality.novelty > 1
    assert not answer.quality.in_distribution and "do not trust" in answer.warnings[-1]
    response = compose(answer, request_id="r", stamp="s")
    assert response.quality.novelty == answer.quality.novelty


def test_intervals_go_with_the_spreads(
    checkpoint: Checkpoint, scene: Scene, drawing: Picture
) -> None:
    response = compose(knowing(checkpoint, scene).infer(drawing), request_id="r", stamp="s")
    azimuth = response.camera.azimuth
    assert azimuth.std == pytest.approx(0.02)
    widths = [azimuth.within[level] for level in ("0.5", "0.8", "0.9", "0.95")]
    assert widths == pytest.approx([0.02 * z for z in (0.674, 1.282, 1.645, 1.96)], rel=0.01)
    for item in response.objects:
        assert (item.yaw.within == {}) == (item.symmetry.kind == "continuous")
        distances = list(item.position_within.values())
        assert distances == pytest.approx([1.177, 1.794, 2.146, 2.448], rel=0.01)


def test_infers_the_same_twice_and_counts_its_time(engine: Engine, picture: Picture) -> None:
    engine.warm_up()
    first, second = engine.infer(picture), engine.infer(picture)
    assert torch.equal(first.estimate.scene.position, second.estimate.scene.position)
    assert len(first.boxes) == int(first.estimate.scene.count[0])
    assert first.timing.infer > 0 and first.timing.render > 0 and first.timing.refine == 0


def test_refinement_finds_what_the_network_missed(
    checkpoint: Checkpoint, scene: Scene, drawing: Picture
) -> None:
    near = dataclasses.replace(
        scene,
        position=scene.position + torch.tensor([0.012, -0.008]),
        yaw=scene.yaw + 0.1,
        azimuth=scene.azimuth + 0.02,
    )
    engine = knowing(checkpoint, near)
    answer = engine.infer(drawing)
    refined = engine.refine(answer, steps=6, seconds=math.inf)
    there = scene.presence
    missed = (refined.estimate.scene.position - scene.position).norm(dim=-1)[there]
    assert missed.max() < 0.003 < 0.014
    assert (refined.estimate.scene.azimuth - scene.azimuth).abs() < 0.003
    before, after = answer.quality, refined.quality
    assert after.reconstruction_error < 0.3 * before.reconstruction_error
    assert after.explained > before.explained
    assert refined.timing.refine > 0 and refined.timing.infer == answer.timing.infer
    assert refined.timing.render > answer.timing.render
    # Spreads are those of the picture now, and boxes are around where things are.
    spread = refined.estimate.position_covariance[0, 0].diagonal()
    assert (spread < answer.estimate.position_covariance[0, 0].diagonal()).all()
    assert refined.boxes != answer.boxes and refined.warnings == answer.warnings
    response = compose(refined, request_id="r", stamp="s")
    assert response.timing_ms.refine == refined.timing.refine
    assert response.objects[0].covariance[0] == pytest.approx(float(spread[0]))


def test_refinement_that_has_no_time_says_so(
    checkpoint: Checkpoint, scene: Scene, drawing: Picture
) -> None:
    engine = knowing(checkpoint, scene)
    answer = engine.infer(drawing)
    refined = engine.refine(answer, steps=5, seconds=1e-6)
    assert torch.equal(refined.estimate.scene.position, answer.estimate.scene.position)
    assert "AIRSCENE_REFINE_SECONDS" in refined.warnings[-1]
    assert refined.quality == answer.quality


def test_belongs_to_its_thread(engine: Engine, picture: Picture) -> None:
    caught: list[Exception] = []

    def work() -> None:
        try:
            engine.infer(picture)
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "thread" in str(caught[0])


def test_numbers_that_are_not_finite_are_no_answer(
    checkpoint: Checkpoint, scene: Scene, picture: Picture
) -> None:
    engine = knowing(checkpoint, scene, count_probabilities=torch.full((1, 4), math.nan))
    with pytest.raises(EngineError, match="not finite"):
        engine.infer(picture)


def test_the_answer_in_json(checkpoint: Checkpoint, scene: Scene, picture: Picture) -> None:
    spec = checkpoint.spec
    answer = knowing(checkpoint, scene).infer(picture)
    response = compose(answer, request_id="r", stamp="s")
    assert response.count.value == len(response.objects) == int(scene.count[0])
    for k, thing in enumerate(response.objects):
        item = spec.objects[int(scene.identity[0, k])]
        assert thing.id == k
        assert thing.class_id == thing.hypotheses[0].class_id == item.name
        assert thing.score == pytest.approx(0.9 * 0.8)
        assert sum(h.score for h in thing.hypotheses) == pytest.approx(1)
        assert [thing.pose.position.x, thing.pose.position.y] == scene.position[0, k].tolist()
        assert thing.pose.position.z == 0
        yaw = 2 * math.atan2(thing.pose.orientation.z, thing.pose.orientation.w)
        assert math.cos(yaw - thing.yaw.value) == pytest.approx(1)
        continuous = item.symmetry == "continuous"
        assert thing.yaw.std == (None if continuous else pytest.approx(0.1))
        wanted = torch.zeros(6, 6)
        wanted[:2, :2] = torch.tensor([[4e-4, 1e-4], [1e-4, 9e-4]])
        wanted[5, 5] = UNIFORM if continuous else 0.01
        assert thing.covariance == pytest.approx(wanted.flatten().tolist(), rel=1e-6)
    assert {thing.symmetry.kind for thing in response.objects} <= {"none", "continuous"}


def test_the_answer_of_a_plain_network(
    checkpoint: Checkpoint, tmp_path: Path, photo: Image.Image, encode: Encode
) -> None:
    """Complete, and no more sure of a turn that cannot be seen than any other network's."""
    torch.manual_seed(0)
    network = PlainPosterior(
        checkpoint.spec, PlainConfig(channels=8, summary=16, hidden=16, blocks=0)
    )
    with torch.no_grad():
        network.head.bias[0] = 6.0  # as many objects as there can be
        network.head.weight.mul_(20.0)
    save_checkpoint(tmp_path, network, name="plain")
    engine = Engine(tmp_path)
    answer = engine.infer(Decoder(32, 32).decode(encode(photo)))
    response = compose(answer, request_id="r", stamp="s")
    assert len(response.objects) == 3
    for thing in response.objects:
        continuous = thing.symmetry.kind == "continuous"
        assert (thing.yaw.std is None) == continuous
        covariance = torch.tensor(thing.covariance).view(6, 6)
        assert (covariance.diagonal()[[0, 1, 5]] > 0).all()
        assert not continuous or thing.yaw.value == 0
    assert response.camera.azimuth.std > 0
    report = describe(engine.checkpoint)
    assert (report.input.width, report.input.height) == (32, 32)
    engine.close()


def test_oriented_box_holds_the_turned_mesh(
    checkpoint: Checkpoint, scene: Scene, picture: Picture
) -> None:
    spec = checkpoint.spec
    answer = knowing(checkpoint, scene).infer(picture)
    response = compose(answer, request_id="r", stamp="s")
    for k, thing in enumerate(response.objects):
        mesh = spec.geometries[int(scene.identity[0, k])].mesh
        assert mesh is not None
        yaw = thing.yaw.value
        cos, sin = math.cos(yaw), math.sin(yaw)
        turn = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
        place = thing.pose.position
        points = torch.tensor(mesh.vertices) @ turn.T
        points += torch.tensor([place.x, place.y, place.z], dtype=torch.float64)
        middle = thing.bbox3d.center.position
        local = (points - torch.tensor([middle.x, middle.y, middle.z])) @ turn
        size = torch.tensor([thing.bbox3d.size.x, thing.bbox3d.size.y, thing.bbox3d.size.z])
        assert torch.allclose(local.amax(0), size.double() / 2, atol=1e-6)
        assert torch.allclose(local.amin(0), -size.double() / 2, atol=1e-6)


@pytest.mark.parametrize("azimuth", [-2.5, -0.6, 0.0, 0.3, 3.1])
def test_camera_pose_is_that_of_its_optical_frame(checkpoint: Checkpoint, azimuth: float) -> None:
    camera = checkpoint.spec.camera
    pose = optical_pose(checkpoint.spec, azimuth)
    q = pose.orientation
    assert math.hypot(q.x, q.y, q.z, q.w) == pytest.approx(1)
    rotation = rotation_of(q.x, q.y, q.z, q.w)
    position = torch.tensor(
        [pose.position.x, pose.position.y, pose.position.z], dtype=torch.float64
    )
    points = torch.rand(20, 3, dtype=torch.float64) - 0.5
    # A textbook pinhole camera: x right, y down, z forward.
    seen = (points - position) @ rotation
    focal = 240 / math.tan(math.radians(camera.fovy_deg) / 2)
    pixels = torch.tensor([320.0, 240.0]) + focal * seen[:, :2] / seen[:, 2:]
    angle = torch.tensor([azimuth], dtype=torch.float64)
    wanted = project(camera, angle, points[None], height=480, width=640)[0]
    assert torch.allclose(pixels, wanted, atol=1e-6)


def test_quaternion_of_any_rotation() -> None:
    values = torch.randn(200, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values[:4] = torch.eye(4)  # half turns, which the plain formula divides by zero for
    for value in torch.nn.functional.normalize(values):
        found = quaternion(rotation_of(*value.tolist()).tolist())
        answer = torch.tensor([found.x, found.y, found.z, found.w], dtype=torch.float64)
        assert abs(float(answer @ value)) == pytest.approx(1)
        assert found.w >= 0


def rotation_of(x: float, y: float, z: float, w: float) -> Tensor:
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )


def test_description_of_the_model(checkpoint: Checkpoint) -> None:
    report = describe(dataclasses.replace(checkpoint, evaluation={"recall": 0.9}))
    assert [item.name for item in report.classes] == ["cup", "pan", "plate"]
    assert report.classes[2].symmetry.kind == "continuous"
    assert report.classes[2].size.x == pytest.approx(report.classes[2].size.y, rel=1e-3)
    assert report.camera.fovy == pytest.approx(math.pi / 4)
    assert report.camera.azimuth.max == pytest.approx(math.radians(40))
    assert (report.input.width, report.input.height) == (64, 64)
    assert report.evaluation == {"recall": 0.9}

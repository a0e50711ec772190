"""The answer in other forms, each read back as its readers would."""

import csv
import io
import json
import math

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from renderer import Scene, SceneSpec
from renderer.camera import project
from service import schemas
from service.answers import optical_pose
from service.descriptions import DescriptionError, describe_scenes, scene_of
from service.formats.choice import Format, write
from service.formats.detection3d import detection3d
from service.schemas import SceneDescription


def angle(value: float, std: float | None = 0.01) -> schemas.Angle:
    return schemas.Angle(value=value, std=std)


@pytest.fixture
def answer(spec: SceneSpec, scene: Scene) -> schemas.InferResponse:
    """The answer that names exactly what is in `scene`."""
    description = describe_scenes(spec, scene)[0]
    objects = []
    for k, item in enumerate(description.objects):
        others = [name for name in spec.class_names if name != item.class_id]
        objects.append(
            schemas.DetectedObject(
                id=k + 10,
                class_id=item.class_id,
                score=0.72,
                hypotheses=[
                    schemas.Hypothesis(class_id=item.class_id, score=0.8),
                    *(schemas.Hypothesis(class_id=name, score=0.1) for name in others),
                ],
                pose=item.pose,
                yaw=angle(float(scene.yaw[0, k])),
                covariance=[1e-4 * n for n in range(36)],
                symmetry=schemas.Symmetry(kind="none", order=1),
                bbox2d=schemas.Box2D(x=1, y=2, width=3, height=4),
                bbox3d=schemas.Box3D(center=item.pose, size=schemas.Vector3(x=0.1, y=0.2, z=0.3)),
            )
        )
    azimuth = float(scene.azimuth[0])
    return schemas.InferResponse(
        request_id="r",
        stamp="2026-11-22T10:20:30.456Z",
        model=schemas.ModelName(name="m", version="1", sha256="0"),
        image=schemas.ImageInfo(width=256, height=256, sha256="0"),
        count=schemas.CountEstimate(value=len(objects), probabilities=[0.0, 0.0, 0.0, 1.0]),
        camera=schemas.CameraEstimate(azimuth=angle(azimuth), pose=optical_pose(spec, azimuth)),
        objects=objects,
        quality=schemas.QualityReport(
            reconstruction_error=0.0, explained=1.0, in_distribution=True
        ),
        warnings=[],
        timing_ms=schemas.TimingMs(decode=1.0, infer=20.0, refine=0.0, render=4.0),
    )


# The messages' definitions, field by field, of ROS 2 Jazzy (vision_msgs 4.1).
POSE = {"position": {"x", "y", "z"}, "orientation": {"x", "y", "z", "w"}}
HEADER = {"stamp": {"sec", "nanosec"}, "frame_id": str}
MESSAGE = {
    "header": HEADER,
    "detections": [
        {
            "header": HEADER,
            "results": [
                {
                    "hypothesis": {"class_id": str, "score": float},
                    "pose": {"pose": POSE, "covariance": [float]},
                }
            ],
            "bbox": {"center": POSE, "size": {"x", "y", "z"}},
            "id": str,
        }
    ],
}


def check_fields(found: object, wanted: object) -> None:
    """That a decoded JSON has exactly the fields of a message."""
    match wanted:
        case dict():
            assert isinstance(found, dict)
            assert set(found) == set(wanted)
            for key, value in wanted.items():
                check_fields(found[key], value)
        case set():
            assert isinstance(found, dict)
            assert set(found) == wanted
        case list():
            assert isinstance(found, list)
            assert found
            for value in found:
                check_fields(value, wanted[0])
        case type():
            assert isinstance(found, wanted)


def test_detections_have_the_fields_of_the_message(
    answer: schemas.InferResponse, spec: SceneSpec
) -> None:
    message = json.loads(write(Format.DETECTION3D, answer, spec))
    check_fields(message, MESSAGE)
    assert message["header"] == {
        "stamp": {"sec": 1795342830, "nanosec": 456_000_000},
        "frame_id": "table",
    }
    assert [each["id"] for each in message["detections"]] == [
        str(item.id) for item in answer.objects
    ]


def test_a_detections_scores_are_of_object_and_class_together(
    answer: schemas.InferResponse,
) -> None:
    results = detection3d(answer).detections[0].results
    assert [each.hypothesis.score for each in results] == pytest.approx([0.72, 0.09, 0.09])
    # Of another class, it would stand there as well, but turned nobody knows how.
    assert results[0].pose.covariance == answer.objects[0].covariance
    assert results[1].pose.covariance[:35] == answer.objects[0].covariance[:35]
    assert results[1].pose.covariance[35] == pytest.approx(math.pi**2 / 3)


def test_bop_rows_bring_models_to_where_the_camera_sees_them(
    answer: schemas.InferResponse, spec: SceneSpec, scene: Scene
) -> None:
    rows = list(csv.DictReader(io.StringIO(write(Format.BOP, answer, spec, scene_id=3, im_id=7))))
    assert list(rows[0]) == ["scene_id", "im_id", "obj_id", "score", "R", "t", "time"]
    assert len(rows) == len(answer.objects) > 1
    focal = 128 / math.tan(math.radians(spec.camera.fovy_deg) / 2)
    corner = np.array([0.05, -0.02, 0.08])  # m, some point of a model
    for k, row in enumerate(rows):
        assert (row["scene_id"], row["im_id"], row["score"]) == ("3", "7", "0.72")
        assert spec.class_names[int(row["obj_id"]) - 1] == answer.objects[k].class_id
        assert float(row["time"]) == pytest.approx(0.025)
        rotation = np.array([float(value) for value in row["R"].split(" ")]).reshape(3, 3)
        moved = np.array([float(value) for value in row["t"].split(" ")])
        assert np.linalg.det(rotation) == pytest.approx(1.0)
        x, y, z = rotation @ (1e3 * corner) + moved
        assert z > 0
        pixel = [128 + focal * x / z, 128 + focal * y / z]  # OpenCV's pinhole
        turn = Rotation.from_euler("z", float(scene.yaw[0, k])).as_matrix()
        point = turn @ corner + [*scene.position[0, k].tolist(), 0.0]
        expected = project(
            spec.camera,
            scene.azimuth.double(),
            scene.azimuth.new_tensor(point).double()[None, None],
            256,
            256,
        )
        assert pixel == pytest.approx(expected[0, 0].tolist(), abs=0.01)


def test_mjcf_has_the_objects_where_the_answer_says(
    answer: schemas.InferResponse, spec: SceneSpec
) -> None:
    model = mujoco.MjModel.from_xml_string(write(Format.MJCF, answer, spec))
    for k, item in enumerate(answer.objects):
        body = model.body(f"{item.class_id}-{k}")
        place, turn = item.pose.position, item.pose.orientation
        assert body.pos == pytest.approx([place.x, place.y, 0.0], abs=1e-5)
        found = [turn.w, turn.x, turn.y, turn.z]
        assert abs(float(np.dot(body.quat, found))) == pytest.approx(1.0, abs=1e-5)


def test_a_description_gives_its_scene_back(
    answer: schemas.InferResponse, spec: SceneSpec, scene: Scene
) -> None:
    description = SceneDescription.model_validate_json(answer.model_dump_json())
    found = scene_of(spec, description)
    assert found.presence.tolist() == scene.presence.tolist()
    count = int(scene.count[0])
    assert found.identity[0, :count].tolist() == scene.identity[0, :count].tolist()
    assert torch.allclose(found.position[0, :count], scene.position[0, :count])
    turned = found.yaw[0, :count] - scene.yaw[0, :count]
    assert torch.allclose(turned.cos(), torch.ones(count))
    assert float(found.azimuth[0]) == pytest.approx(float(scene.azimuth[0]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"class_id": "spoon"}, r"objects\[0\].class_id: .*'spoon'; it knows cup, pan, plate"),
        ({"z": 0.1}, r"position.z: is 0.1 m; objects stand on the table"),
        ({"w": 0.5}, "has length 0.5; give a unit quaternion"),
        ({"orientation": {"x": 1, "y": 0, "z": 0, "w": 0}}, "is tilted; objects stand upright"),
    ],
)
def test_a_description_of_no_scene(spec: SceneSpec, change: dict, says: str) -> None:
    item = {
        "class_id": change.get("class_id", "cup"),
        "pose": {
            "position": {"x": 0, "y": 0, "z": change.get("z", 0)},
            "orientation": change.get(
                "orientation", {"x": 0, "y": 0, "z": 0, "w": change.get("w", 1)}
            ),
        },
    }
    description = SceneDescription.model_validate(
        {"camera": {"azimuth": {"value": 0}}, "objects": [item]}
    )
    with pytest.raises(DescriptionError, match=says):
        scene_of(spec, description)


def test_a_description_of_too_many_objects(spec: SceneSpec, answer: schemas.InferResponse) -> None:
    item = answer.objects[0].model_dump()
    description = SceneDescription.model_validate(
        {"camera": {"azimuth": {"value": 0}}, "objects": [item] * 4}
    )
    with pytest.raises(DescriptionError, match="there are 4; this model's scenes have at most 3"):
        scene_of(spec, description)

"""The answer as ROS 2's `vision_msgs/msg/Detection3DArray`, in JSON.

The names and the nesting are those of the messages, so that
`rosidl_runtime_py.set_message_fields` fills a message from the decoded JSON as it is. Units and
axes are REP-103's already: metres, radians, quaternions x y z w.
"""

from __future__ import annotations

import math
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from service.schemas import DetectedObject, InferResponse, Pose, Vector3

# Of a yaw of which nothing is known, rad^2.
UNIFORM = math.pi**2 / 3
RZ_RZ = 35  # place of the yaw's variance among the 36 numbers


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Time(_Message):
    """`builtin_interfaces/msg/Time`: since 1970, UTC."""

    sec: int
    nanosec: int


class Header(_Message):
    """`std_msgs/msg/Header`."""

    stamp: Time
    frame_id: str


class ObjectHypothesis(_Message):
    """`vision_msgs/msg/ObjectHypothesis`."""

    class_id: str
    score: float


class PoseWithCovariance(_Message):
    """`geometry_msgs/msg/PoseWithCovariance`."""

    pose: Pose
    covariance: list[float] = Field(min_length=36, max_length=36)


class ObjectHypothesisWithPose(_Message):
    """`vision_msgs/msg/ObjectHypothesisWithPose`."""

    hypothesis: ObjectHypothesis
    pose: PoseWithCovariance


class BoundingBox3D(_Message):
    """`vision_msgs/msg/BoundingBox3D`."""

    center: Pose
    size: Vector3


class Detection3D(_Message):
    """`vision_msgs/msg/Detection3D`."""

    header: Header
    results: list[ObjectHypothesisWithPose]
    bbox: BoundingBox3D
    id: str


class Detection3DArray(_Message):
    """`vision_msgs/msg/Detection3DArray`."""

    header: Header
    detections: list[Detection3D]


def detection3d(answer: InferResponse) -> Detection3DArray:
    """The answer as a message. `id` is the object's own; the stamp, when the picture arrived."""
    header = Header(stamp=_time(answer.stamp), frame_id=answer.frame_id)
    return Detection3DArray(
        header=header,
        detections=[
            Detection3D(
                header=header,
                results=_results(item),
                bbox=BoundingBox3D(center=item.bbox3d.center, size=item.bbox3d.size),
                id=str(item.id),
            )
            for item in answer.objects
        ],
    )


def _results(item: DetectedObject) -> list[ObjectHypothesisWithPose]:
    """One result a class, most probable first.

    A message's score is of the whole hypothesis: that the object is there and of that class. Only
    the best class has a pose of its own; were the object of another, it would stand there as well,
    but its turn would be unknown, and its covariance says so.
    """
    given = next(each.score for each in item.hypotheses if each.class_id == item.class_id)
    there = item.score / given if given else 0.0
    turned = [*item.covariance[:RZ_RZ], UNIFORM]
    return [
        ObjectHypothesisWithPose(
            hypothesis=ObjectHypothesis(class_id=each.class_id, score=there * each.score),
            pose=PoseWithCovariance(
                pose=item.pose,
                covariance=item.covariance if each.class_id == item.class_id else turned,
            ),
        )
        for each in item.hypotheses
    ]


def _time(stamp: str) -> Time:
    moment = datetime.fromisoformat(stamp)
    # Through whole microseconds: a float of seconds since 1970 has no nanoseconds to give.
    seconds = int(moment.replace(microsecond=0).timestamp())
    return Time(sec=seconds, nanosec=1000 * moment.microsecond)

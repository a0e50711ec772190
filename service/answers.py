"""From the engine's tensors to the models of the HTTP schema."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from inference.checkpoint import Checkpoint
from inference.images import Rectangle
from renderer.spec import SceneSpec
from service import schemas
from service.engine import Answer

# Variance of an angle that is uniform over the full circle, rad^2.
UNIFORM = math.pi**2 / 3


def now() -> str:
    """This moment as RFC 3339 in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def compose(answer: Answer, *, request_id: str, stamp: str) -> schemas.InferResponse:
    """The response to one picture.

    Args:
        answer: of the engine.
        request_id: of the request.
        stamp: when the picture arrived.
    """
    checkpoint = answer.checkpoint
    estimate, quality, timing = answer.estimate, answer.quality, answer.timing
    # Numbers of Python from here on. A tensor of three costs more than all that is done with it,
    # and lets other threads run in between, which then have to be waited for.
    count = sum(estimate.scene.presence[0].tolist())
    std = estimate.azimuth_std.tolist()[0]
    azimuth = schemas.Angle(
        value=estimate.scene.azimuth.tolist()[0],
        std=std,
        within=answer.within.azimuth if std else {},
    )
    return schemas.InferResponse(
        request_id=request_id,
        stamp=stamp,
        model=schemas.ModelName(
            name=checkpoint.name, version=checkpoint.version, sha256=checkpoint.sha256
        ),
        image=schemas.ImageInfo(
            width=answer.picture.width, height=answer.picture.height, sha256=answer.picture.sha256
        ),
        count=schemas.CountEstimate(
            value=count, probabilities=estimate.count_probabilities[0].tolist()
        ),
        camera=schemas.CameraEstimate(
            azimuth=azimuth, pose=optical_pose(checkpoint.spec, azimuth.value)
        ),
        objects=_objects(checkpoint.spec, answer),
        quality=schemas.QualityReport(
            reconstruction_error=quality.reconstruction_error,
            explained=quality.explained,
            novelty=quality.novelty,
            in_distribution=quality.in_distribution,
        ),
        warnings=list(answer.warnings),
        timing_ms=schemas.TimingMs(
            decode=answer.picture.decode_ms,
            infer=timing.infer,
            refine=timing.refine,
            render=timing.render,
        ),
    )


def optical_pose(spec: SceneSpec, azimuth: float) -> schemas.Pose:
    """Pose of the camera's optical frame (z forward, x right, y down) in the table frame."""
    # As `renderer.camera.camera_pose` has it, whose camera has y up and z backwards.
    camera, elevation = spec.camera, math.radians(spec.camera.elevation_deg)
    rise, reach = math.sin(elevation), math.cos(elevation)
    cos, sin = math.cos(azimuth), math.sin(azimuth)
    x, y, z = camera.target
    position = schemas.Vector3(
        x=x + camera.distance * reach * sin,
        y=y - camera.distance * reach * cos,
        z=z + camera.distance * rise,
    )
    turn = math.radians(camera.roll_deg)
    level = (
        (cos, sin * rise, -sin * reach),
        (sin, -cos * rise, cos * reach),
        (0.0, -reach, -rise),
    )
    # Its right turns up by the roll, its down to the right.
    rotation = [
        (
            math.cos(turn) * right - math.sin(turn) * down,
            math.sin(turn) * right + math.cos(turn) * down,
            forward,
        )
        for right, down, forward in level
    ]
    return schemas.Pose(position=position, orientation=quaternion(rotation))


def quaternion(rotation: Sequence[Sequence[float]]) -> schemas.Quaternion:
    """The quaternion, with w >= 0, of the rows of a rotation matrix."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    # Row n of this table is the quaternion times 4 times its n-th component: the row of the
    # greatest component loses no digits (Shepperd's method).
    rows = [
        [1 + a - e - i, b + d, c + g, h - f],
        [b + d, 1 - a + e - i, f + h, c - g],
        [c + g, f + h, 1 - a - e + i, d - b],
        [h - f, c - g, d - b, 1 + a + e + i],
    ]
    row = max(rows, key=lambda values: math.hypot(*values))
    length = math.copysign(math.hypot(*row), row[3])
    x, y, z, w = (value / length for value in row)
    return schemas.Quaternion(x=x, y=y, z=z, w=w)


def describe(checkpoint: Checkpoint) -> schemas.ModelReport:
    """The answer to `GET /model`."""
    spec, network = checkpoint.spec, checkpoint.posterior.config
    camera = spec.camera
    least, greatest = camera.azimuth_range
    return schemas.ModelReport(
        name=checkpoint.name,
        version=checkpoint.version,
        sha256=checkpoint.sha256,
        classes=[
            schemas.KnownClass(
                name=item.name,
                symmetry=_symmetry(item.symmetry_order),
                size=_size(spec, c),
            )
            for c, item in enumerate(spec.objects)
        ],
        count_max=spec.count.max,
        camera=schemas.CameraModel(
            target=_vector(camera.target),
            distance=camera.distance,
            elevation=math.radians(camera.elevation_deg),
            fovy=math.radians(camera.fovy_deg),
            aspect=camera.aspect,
            roll=math.radians(camera.roll_deg),
            principal=schemas.Vector2(x=camera.principal[0], y=camera.principal[1]),
            azimuth=schemas.Range(min=least, max=greatest),
        ),
        table=schemas.TableModel(
            size=schemas.Vector2(x=2 * spec.table.half_size[0], y=2 * spec.table.half_size[1]),
            colour=list(spec.table.colour),
        ),
        placement=schemas.Placement(
            extent=schemas.Vector2(x=spec.placement.extent[0], y=spec.placement.extent[1])
        ),
        input=schemas.InputSize(width=network.width, height=network.height),
        evaluation=checkpoint.evaluation,
        card=checkpoint.card,
    )


def _objects(spec: SceneSpec, answer: Answer) -> list[schemas.DetectedObject]:
    estimate, scene = answer.estimate, answer.estimate.scene
    columns = (
        *(scene.identity, scene.position, scene.yaw),
        *(estimate.presence_probability, estimate.class_probabilities),
        *(estimate.position_covariance, estimate.yaw_std),
    )
    rows = zip(*(column[0].tolist() for column in columns), strict=True)
    within = answer.within
    return [
        _object(spec, k, box, within.yaw[k], within.position[k], *row)
        for k, (box, row) in enumerate(zip(answer.boxes, rows, strict=False))
    ]


def _object(
    spec: SceneSpec,
    k: int,
    box: Rectangle,
    turn: dict[str, float],
    place_within: dict[str, float],
    identity: int,
    place: tuple[float, float],
    turned: float,
    presence: float,
    classes: list[float],
    spread: list[list[float]],
    std: float,
) -> schemas.DetectedObject:
    """The object in slot `k`."""
    order, names = spec.objects[identity].symmetry_order, spec.class_names
    seen = order != 0 and math.isfinite(std)
    yaw = turned if order else 0.0
    hypotheses = [
        schemas.Hypothesis(class_id=names[c], score=classes[c])
        for c in sorted(range(len(classes)), key=lambda c: -classes[c])
    ]
    orientation = schemas.Quaternion(x=0.0, y=0.0, z=math.sin(yaw / 2), w=math.cos(yaw / 2))
    lower, upper = spec.geometries[identity].lower, spec.geometries[identity].upper
    x, y, z = ((low + high) / 2 for low, high in zip(lower, upper, strict=True))
    cos, sin = math.cos(yaw), math.sin(yaw)
    return schemas.DetectedObject(
        id=k,
        class_id=names[identity],
        score=presence * classes[identity],
        hypotheses=hypotheses,
        pose=schemas.Pose(
            position=schemas.Vector3(x=place[0], y=place[1], z=0.0), orientation=orientation
        ),
        yaw=schemas.Angle(value=yaw, std=std if seen else None, within=turn if seen else {}),
        covariance=_covariance(spread, min(std**2, UNIFORM) if seen else UNIFORM),
        position_within=place_within,
        symmetry=_symmetry(order),
        bbox2d=schemas.Box2D(x=box.x, y=box.y, width=box.width, height=box.height),
        bbox3d=schemas.Box3D(
            center=schemas.Pose(
                position=schemas.Vector3(
                    x=place[0] + cos * x - sin * y, y=place[1] + sin * x + cos * y, z=z
                ),
                orientation=orientation,
            ),
            size=_size(spec, identity),
        ),
    )


def _covariance(plane: list[list[float]], yaw: float) -> list[float]:
    """The 36 numbers from the position's 2 x 2 m^2 and the yaw's variance, rad^2."""
    values = [0.0] * 36
    values[0], values[7], values[35] = plane[0][0], plane[1][1], yaw
    values[1] = values[6] = (plane[0][1] + plane[1][0]) / 2  # rounding leaves them a little apart
    return values


def _symmetry(order: int) -> schemas.Symmetry:
    if order == 0:
        return schemas.Symmetry(kind="continuous", order=order)
    return schemas.Symmetry(kind="none" if order == 1 else "n-fold", order=order)


def _size(spec: SceneSpec, identity: int) -> schemas.Vector3:
    geometry = spec.geometries[identity]
    x, y, z = (high - low for low, high in zip(geometry.lower, geometry.upper, strict=True))
    return schemas.Vector3(x=x, y=y, z=z)


def _vector(values: Sequence[float]) -> schemas.Vector3:
    x, y, z = values
    return schemas.Vector3(x=x, y=y, z=z)

"""What the service answers, as pydantic models; the field names follow ROS 2's messages.

Metres, radians, seconds (milliseconds for timing); quaternions x, y, z, w. The table frame has its
origin at the centre of the table top, z up; at azimuth 0 the camera stands at -y looking to +y.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.problems import ProblemDocument


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Vector3(_Model):
    """x, y, z."""

    x: float
    y: float
    z: float


class Quaternion(_Model):
    """A unit quaternion."""

    x: float
    y: float
    z: float
    w: float


class Pose(_Model):
    """Position in metres and orientation, in the frame `frame_id`."""

    position: Vector3
    orientation: Quaternion


class Angle(_Model):
    """An angle and its spread."""

    value: float = Field(description="rad")
    std: float | None = Field(
        description="Standard deviation, rad. null when the angle cannot be seen at all "
        "(an object of continuous symmetry): its value is then 0.0 and means nothing. "
        "0.0 when it is known beforehand (a camera that does not move). The truth lies within "
        "one of it as often as a Gaussian's does (68 %); farther out, see `within`."
    )
    within: dict[str, float] = Field(
        default={},
        description="Half-widths of the intervals around `value`, rad, that hold the truth with "
        "probability 0.5, 0.8, 0.9 and 0.95. Longer tails than a Gaussian's are in them, and "
        "that a cup may be turned the other way round. Empty where `std` is null or 0.0.",
    )


class ModelName(_Model):
    """Which model answered."""

    name: str
    version: str
    sha256: str = Field(description="Of the weights, model.safetensors.")


class ImageInfo(_Model):
    """The picture as it came."""

    width: int = Field(description="px, after the EXIF orientation was applied")
    height: int = Field(description="px, after the EXIF orientation was applied")
    sha256: str = Field(description="Of the image file's bytes.")


class CountEstimate(_Model):
    """How many objects there are."""

    value: int = Field(description="The most probable count: the length of `objects`.")
    probabilities: list[float] = Field(description="Of 0, 1, 2, … objects; they sum to 1.")


class CameraEstimate(_Model):
    """Where the picture was taken from."""

    azimuth: Angle
    pose: Pose = Field(
        description="Pose of the camera's optical frame (z forward, x to the right of the "
        "picture, y down; REP-103) in the table frame."
    )


class Hypothesis(_Model):
    """One class that the object may be of."""

    class_id: str
    score: float = Field(description="Probability of this class, given that the object is there.")


class Symmetry(_Model):
    """Which turns of the object about its z axis cannot be seen."""

    kind: Literal["none", "n-fold", "continuous"]
    order: int = Field(
        description="1 for none, n for n-fold (a turn by 2 pi / n changes nothing), "
        "0 for continuous. Of all yaws that look alike, the one nearest to 0 is given."
    )


class Box2D(_Model):
    """A box in px of the upright original picture; x, y is its top left corner."""

    x: float
    y: float
    width: float
    height: float


class Box3D(_Model):
    """An oriented box in the table frame."""

    center: Pose
    size: Vector3 = Field(description="m, along the box's own axes")


class DetectedObject(_Model):
    """One object on the table."""

    id: int = Field(description="Its place in `objects`; not the same object in the next picture.")
    class_id: str
    score: float = Field(description="Probability that it is there and of class `class_id`.")
    hypotheses: list[Hypothesis] = Field(description="All classes, most probable first.")
    pose: Pose = Field(description="Of the object's own frame, which stands on the table: z is 0.")
    yaw: Angle = Field(description="The turn of `pose` about z.")
    covariance: list[float] = Field(
        min_length=36,
        max_length=36,
        description="Of `pose`, 6 x 6, row-major, in the order x y z rx ry rz (m, rad; fixed axes "
        "of the table frame). The object stands on the table: z, rx and ry are 0. A yaw that "
        "cannot be seen has pi^2 / 3, the variance of an angle of which nothing is known.",
    )
    position_within: dict[str, float] = Field(
        default={},
        description="The position's error e (x, y) has e^T C^-1 e <= d^2, C its part of "
        "`covariance`, with probability 0.5, 0.8, 0.9 and 0.95 for these d.",
    )
    symmetry: Symmetry
    bbox2d: Box2D = Field(
        description="Around the whole object, hidden parts too; cut off at the picture's edge."
    )
    bbox3d: Box3D


class QualityReport(_Model):
    """How well the inferred scene, drawn again, explains the picture."""

    reconstruction_error: float = Field(
        description="Mean squared difference of the pixels (0 to 1), at the network's size."
    )
    explained: float = Field(
        ge=0.0,
        le=1.0,
        description="With objects: share of the picture's squared difference from the empty table "
        "that the drawn objects explain. Without: share of pixels that look like the empty table.",
    )
    novelty: float | None = Field(
        default=None,
        ge=0.0,
        description="How far the picture is on its way to being unlike those that the model knows, "
        "by the place that the drawn scene explains least and by the network's own doubt: above 1 "
        "it is. null: the model has no limits for it.",
    )
    in_distribution: bool = Field(
        description="Whether `novelty` is at most 1 (without it, whether `reconstruction_error` is "
        "as small as on pictures that the model knows). If not, do not trust the answer."
    )


class TimingMs(_Model):
    """Milliseconds that each part took; waiting is not counted."""

    decode: float
    infer: float
    refine: float
    render: float


class _Described(BaseModel):
    """Every answer is a description too: what it says beyond is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class DescribedAngle(_Described):
    """An angle."""

    value: float = Field(description="rad")


class DescribedCamera(_Described):
    """Where the camera stands."""

    azimuth: DescribedAngle


class DescribedObject(_Described):
    """One object on the table."""

    class_id: str = Field(description="One of `classes` in GET /model.")
    pose: Pose = Field(
        description="Of the object's own frame, which stands on the table: z is 0, and the "
        "orientation is a turn about z alone."
    )


class SceneDescription(_Described):
    """A scene: the camera's azimuth, and the class and pose of each object.

    The answers of POST /infer can be given as they are.
    """

    camera: DescribedCamera
    objects: list[DescribedObject] = Field(max_length=64)


class AttentionMap(_Model):
    """How much a step looked at each cell of a grid over the picture."""

    region: Box2D = Field(description="Of the picture, that the grid divides into equal cells.")
    rows: int
    columns: int
    weights: list[float] = Field(description="Row by row from the top left; they sum to 1.")


class Step(_Model):
    """One step of the inference: attend, decide whether anything is left, infer it, repeat."""

    presence: float = Field(
        description="Probability that there is another object, given that there were all before."
    )
    attention: AttentionMap


class InferResponse(_Model):
    """The scene in one picture."""

    schema_version: Literal["1.0"] = "1.0"
    request_id: str = Field(description="From the request's header X-Request-ID, or made here.")
    stamp: str = Field(description="When the picture arrived: RFC 3339, UTC, milliseconds.")
    model: ModelName
    image: ImageInfo
    frame_id: Literal["table"] = "table"
    count: CountEstimate
    camera: CameraEstimate
    objects: list[DetectedObject]
    quality: QualityReport
    warnings: list[str] = Field(description="What to know before trusting the answer, in words.")
    timing_ms: TimingMs
    samples: list[SceneDescription] = Field(
        default=[], description="Scenes drawn from the model's posterior, when asked for."
    )
    steps: list[Step] = Field(
        default=[],
        description="How the model came to its answer, when asked for: the k-th step found the "
        "k-th of `objects`; the ones behind the last object, if any, found nothing left.",
    )


class BatchItem(_Model):
    """What became of one picture of several: an answer or a problem."""

    status: int = Field(description="As it would be if the picture had come alone.")
    answer: InferResponse | None
    problem: ProblemDocument | None


class BatchResponse(_Model):
    """The scenes in several pictures."""

    schema_version: Literal["1.0"] = "1.0"
    request_id: str = Field(description="That of each picture has /0, /1, … behind it.")
    stamp: str = Field(description="When the pictures arrived: RFC 3339, UTC, milliseconds.")
    results: list[BatchItem] = Field(description="One for each picture, in their order.")


class ImagesUpload(_Model):
    """Pictures in a JSON body."""

    images: list[str] = Field(min_length=1, description="As `image` of POST /infer, each.")


class ImageUpload(_Model):
    """A picture in a JSON body."""

    image: str = Field(
        description="The PNG, JPEG or WebP file in base64; a `data:…;base64,` prefix is tolerated."
    )


class ShownPicture(_Model):
    """A picture that lies beside the model."""

    name: str = Field(description="Of the file; the last part of its address.")
    caption: str


class PictureList(_Model):
    """Pictures that lie beside the model."""

    pictures: list[ShownPicture]


class KnownClass(_Model):
    """A class of objects that the model knows."""

    name: str
    symmetry: Symmetry
    size: Vector3 = Field(description="m, of its box at yaw 0")


class Range(_Model):
    """Least and greatest value."""

    min: float
    max: float


class Vector2(_Model):
    """x, y."""

    x: float
    y: float


class CameraModel(_Model):
    """The camera that the model expects: a pinhole, on a circle around `target`, looking at it."""

    target: Vector3 = Field(description="m, table frame")
    distance: float = Field(description="m, from the target")
    elevation: float = Field(description="rad, above the table")
    fovy: float = Field(description="rad, field of view from top to bottom")
    aspect: float = Field(description="width / height")
    roll: float = Field(0.0, description="rad, about its axis; what it sees turns clockwise")
    principal: Vector2 = Field(
        Vector2(x=0.0, y=0.0),
        description="from the picture's middle to its axis, right and down, in picture heights",
    )
    azimuth: Range = Field(description="rad")


class TableModel(_Model):
    """The table: its top is the plane z = 0, centred on the origin."""

    size: Vector2 = Field(description="m, from edge to edge")
    colour: list[float] = Field(description="Red, green and blue, 0 to 1, sRGB.")


class Placement(_Model):
    """Where the origins of objects stand."""

    extent: Vector2 = Field(description="m; from -extent to +extent along each axis")


class InputSize(_Model):
    """Size at which the network looks at a picture."""

    width: int
    height: int


class ModelReport(_Model):
    """The model that answers, and what it expects to see."""

    name: str
    version: str
    sha256: str = Field(description="Of the weights, model.safetensors.")
    kind: Literal["3d"] = Field(default="3d", description="3d: it infers objects on a table.")
    frame_id: Literal["table"] = "table"
    classes: list[KnownClass]
    count_max: int
    camera: CameraModel
    table: TableModel
    placement: Placement
    input: InputSize
    evaluation: dict[str, Any] | None = Field(
        description="What was measured on this model, when it was: see `evaluate`."
    )
    card: str | None = Field(
        description="The model card, Markdown: what it sees, how it was trained, how well it "
        "works, where it fails."
    )


class Status(_Model):
    """An answer to a health check."""

    status: Literal["ok", "ready"]

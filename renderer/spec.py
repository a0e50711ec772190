"""SceneSpec: the whole world model in one YAML file.

Table, camera, objects, how many of them, where they may stand, and what spoils the picture.
Everything a user can get wrong is refused on loading with the file, the key and the mend.
"""

from __future__ import annotations

import base64
import json
import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from torch import Tensor

from renderer.fields import Colour, Finite, Part, Positive
from renderer.geometry import GeometryError, ObjectGeometry, mesh_geometry, shape_geometry
from renderer.intrinsics import from_matrix
from renderer.placement import acceptance, stack_footprints
from renderer.variation import Nuisance

BUILTIN = Path(__file__).parent / "scenes"

# Where `save` puts the files that a key names.
_SAVED_IN = {"mesh": "meshes", "texture": "textures"}

# Scenes are drawn by rejection: below this share of accepted draws sampling stalls.
LEAST_ACCEPTANCE = 1e-3


class SpecError(ValueError):
    """A SceneSpec that cannot be used; the message names the file, the key and the mend."""


def read_texture(path: Path) -> NDArray[np.uint8]:
    """The picture in a file, `[H, W, 3]` RGB, without its transparency.

    Raises:
        OSError: there is no such file, or it holds no picture.
    """
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


class Table(Part):
    """A box whose top is the plane z = 0, centred on the origin."""

    half_size: tuple[Positive, Positive]  # m
    colour: Colour
    texture: Path | None = None


Share = Annotated[float, Field(gt=-0.5, lt=0.5)]


class Camera(Part):
    """A pinhole camera on a circle around `target`, always looking at it.

    A calibration's `K` (3 x 3, px) and `image_size` ([width, height], px) may stand for `fovy_deg`,
    `aspect` and `principal`.
    """

    target: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)  # m
    distance: Positive  # m
    elevation_deg: Annotated[float, Field(gt=0.0, lt=90.0)]
    fovy_deg: Annotated[float, Field(gt=0.0, lt=180.0)]
    azimuth_deg: tuple[Finite, Finite]
    aspect: Positive = 1.0  # width / height
    # About its line of sight; what it sees turns clockwise.
    roll_deg: Annotated[float, Field(ge=-180.0, le=180.0)] = 0.0
    # From the picture's middle to where it sees its target, to the right and down, as a share of
    # the picture's height.
    principal: tuple[Share, Share] = (0.0, 0.0)

    @model_validator(mode="before")
    @classmethod
    def _calibrated(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not {"K", "image_size"} & set(data):
            return data
        if not {"K", "image_size"} <= set(data):
            raise ValueError("K and image_size belong together; give both, or `fovy_deg`")
        twice = sorted({"fovy_deg", "aspect", "principal"} & set(data))
        if twice:
            raise ValueError(f"{twice[0]}: follows from K and image_size; leave it out")
        rest = {key: value for key, value in data.items() if key not in ("K", "image_size")}
        return {**rest, **from_matrix(data["K"], data["image_size"])}

    @field_validator("azimuth_deg")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1] or value[1] - value[0] > 360.0:
            raise ValueError("must be [least, greatest] and span at most 360 degrees")
        return value

    @property
    def azimuth_range(self) -> tuple[float, float]:
        """Least and greatest azimuth, rad."""
        return math.radians(self.azimuth_deg[0]), math.radians(self.azimuth_deg[1])

    @property
    def moves(self) -> bool:
        """Whether the azimuth is unknown and must be inferred."""
        return self.azimuth_deg[0] < self.azimuth_deg[1]


class ObjectClass(Part):
    """One kind of object that can stand on the table: a mesh file, or a primitive shape.

    `size` of a shape, in metres: box `[half x, half y, half z]`, sphere `[radius]`, cylinder
    `[radius, half height]`. `symmetry` says which turns about +z cannot be seen: `none`,
    `continuous`, or n for n-fold.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    mesh: Path | None = None
    shape: Literal["box", "sphere", "cylinder"] | None = None
    size: tuple[Positive, ...] | None = None
    scale: Positive = 1.0
    up_axis: Literal["x", "y", "z", "-x", "-y", "-z"] = "z"
    colour: Colour
    texture: Path | None = None
    symmetry: Literal["none", "continuous"] | Annotated[int, Field(ge=2, le=36)] = "none"

    @field_validator("symmetry", mode="wrap")
    @classmethod
    def _one_complaint(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError:  # one for each thing that it could have been
            raise ValueError(
                f"must be `none`, `continuous`, or n from 2 to 36 when n-fold, not {value!r}"
            ) from None

    @model_validator(mode="after")
    def _mesh_or_shape(self) -> Self:
        if (self.mesh is None) == (self.shape is None):
            raise ValueError("give either `mesh: FILE` or `shape: box|sphere|cylinder`")
        if self.shape is not None:
            numbers = {"box": 3, "sphere": 1, "cylinder": 2}[self.shape]
            if self.size is None or len(self.size) != numbers:
                raise ValueError(f"a {self.shape} needs `size` with {numbers} number(s), in metres")
            if self.scale != 1.0 or self.up_axis != "z":
                raise ValueError("`scale` and `up_axis` are for meshes; give a shape its `size`")
        elif self.size is not None:
            raise ValueError("`size` is for shapes; a mesh has `scale`")
        return self

    @property
    def symmetry_order(self) -> int:
        """1 when every turn shows, n for n-fold symmetry, 0 when no turn shows."""
        if self.symmetry == "none":
            return 1
        return 0 if self.symmetry == "continuous" else self.symmetry


class Count(Part):
    """How many objects stand on the table: `probabilities[n]` for n = 0 to `max`."""

    max: Annotated[int, Field(ge=1, le=16)]
    probabilities: tuple[Annotated[float, Field(ge=0.0)], ...] | None = None

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        given = self.probabilities
        if given is None:
            return self
        if len(given) != self.max + 1:
            raise ValueError(f"needs max + 1 = {self.max + 1} probabilities (for 0 to {self.max})")
        if abs(sum(given) - 1.0) > 1e-6:
            raise ValueError(f"probabilities sum to {sum(given):g}; make them sum to 1")
        return self

    @property
    def distribution(self) -> tuple[float, ...]:
        """p(n) for n = 0 to max; uniform when not given."""
        return self.probabilities or (1.0 / (self.max + 1),) * (self.max + 1)


class Placement(Part):
    """Where objects may stand: centres within +-`extent` of the table's centre."""

    extent: tuple[Positive, Positive]  # m
    no_overlap: bool = True
    repeats: bool = True


class SceneSpec(Part):
    """A table, a camera, the objects that can stand there: what a scene is made of."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    table: Table
    camera: Camera
    objects: Annotated[tuple[ObjectClass, ...], Field(min_length=1)]
    count: Count
    placement: Placement
    background: Colour = (0.0, 0.0, 0.0)
    nuisance: Nuisance = Nuisance()

    _folder: Path = PrivateAttr(default=BUILTIN)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [item.name for item in self.objects]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"objects: two classes are named {twice[0]!r}; rename one")
        if not self.placement.repeats and self.count.max > len(names):
            raise ValueError(
                f"count.max: {self.count.max} objects of {len(names)} classes need "
                "`placement.repeats: true`, or a smaller max"
            )
        for axis in range(2):
            if self.placement.extent[axis] > self.table.half_size[axis]:
                raise ValueError(
                    "placement.extent: reaches beyond the table; make it at most "
                    f"table.half_size = {list(self.table.half_size)}"
                )
        self._check_nuisance()
        return self

    def _check_nuisance(self) -> None:
        colour, jitter = self.nuisance.colour, self.nuisance.camera_jitter
        for name in colour.classes if colour is not None else ():
            if name not in self.class_names:
                raise ValueError(
                    f"nuisance.colour.classes: no class is named {name!r}; choose among "
                    f"{', '.join(self.class_names)}"
                )
        if jitter is None:
            return
        if self.camera.distance + jitter.distance[0] <= 0.0:
            raise ValueError(
                "nuisance.camera_jitter.distance: takes the camera into its target; its least must "
                f"be above -{self.camera.distance:g} m, minus camera.distance"
            )
        least, greatest = (self.camera.elevation_deg + turn for turn in jitter.elevation_deg)
        if least <= 0.0 or greatest >= 90.0:
            raise ValueError(
                f"nuisance.camera_jitter.elevation_deg: the camera would be {least:g} to "
                f"{greatest:g} degrees above the table; keep it between 0 and 90"
            )

    def __eq__(self, other: object) -> bool:
        # Pydantic's own would compare what the properties below have kept, tensors among it.
        if not isinstance(other, SceneSpec):
            return NotImplemented
        fields = SceneSpec.model_fields
        same = all(getattr(self, name) == getattr(other, name) for name in fields)
        return same and self.folder == other.folder

    def __hash__(self) -> int:
        return hash((self.name, self.folder, self.objects, self.count, self.placement))

    @staticmethod
    def load(path: str | Path) -> SceneSpec:
        """Reads and checks a SceneSpec.

        Args:
            path: a YAML file, whose relative paths start at its own folder, or the name of a
                built-in spec such as `tabletop`.

        Raises:
            SpecError: what is wrong, in which file, at which key, and how to mend it.
        """
        file = Path(path)
        if not file.is_file() and (BUILTIN / f"{path}.yaml").is_file():
            file = BUILTIN / f"{path}.yaml"
        if file.is_dir():
            raise SpecError(f"{file}: is a folder; give the YAML file in it")
        if not file.is_file():
            known = ", ".join(sorted(item.stem for item in BUILTIN.glob("*.yaml")))
            raise SpecError(f"{file}: no such file; give a YAML file or one of: {known}")
        try:
            data = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            what = getattr(error, "problem", None) or error
            raise SpecError(f"{file}: not readable as YAML: {what}{where}; mend it there") from None
        return SceneSpec.build(data, folder=file.parent, source=str(file))

    @staticmethod
    def build(data: Any, *, folder: Path = BUILTIN, source: str = "spec") -> SceneSpec:
        """Checks a SceneSpec given as plain data; `folder` is where its relative paths start.

        Raises:
            SpecError: as `load`.
        """
        if not isinstance(data, dict):
            raise SpecError(f"{source}: holds no mapping; it must start with keys like `name:`")
        try:
            spec = SceneSpec.model_validate(data)
        except ValidationError as error:
            raise SpecError("\n".join(_explain(source, item) for item in error.errors())) from None
        spec._folder = folder
        spec._check_files(source)
        return spec

    @property
    def folder(self) -> Path:
        """The folder at which relative paths start."""
        return self._folder

    def resolve(self, path: Path) -> Path:
        """A path from the spec, on this machine."""
        return path if path.is_absolute() else self._folder / path

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the C classes, in the order of their indices."""
        return tuple(item.name for item in self.objects)

    @property
    def symmetry_orders(self) -> tuple[int, ...]:
        """For each class 1 (none), n (n-fold) or 0 (continuous)."""
        return tuple(item.symmetry_order for item in self.objects)

    @cached_property
    def geometries(self) -> tuple[ObjectGeometry, ...]:
        """Mesh, footprint and height of each class."""
        return tuple(self._geometry(item) for item in self.objects)

    @cached_property
    def footprints(self) -> Tensor:
        """Discs that cover each class on the table, `[C, P, 3]` (x, y, radius) m."""
        return stack_footprints([geometry.footprint for geometry in self.geometries])

    @cached_property
    def acceptances(self) -> tuple[float, ...]:
        """For each number of objects, the probability that they do not overlap by chance."""
        if not self.placement.no_overlap:
            return (1.0,) * (self.count.max + 1)
        extent, repeats = self.placement.extent, self.placement.repeats
        return tuple(
            acceptance(self.footprints, extent, n, repeats) for n in range(self.count.max + 1)
        )

    def save(self, folder: Path) -> Path:
        """Writes the spec and every file that it needs to `folder`; returns the YAML's path."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        contents: dict[Path, bytes] = {}  # path in `folder` -> what to write there

        def keep(entry: dict[str, Any], key: str, path: Path | None) -> None:
            if path is not None:
                content = _self_contained(self.resolve(path))
                target = _free_name(contents, Path(_SAVED_IN[key]) / path.name, content)
                contents[target] = content
                entry[key] = target.as_posix()

        keep(data["table"], "texture", self.table.texture)
        for entry, item in zip(data["objects"], self.objects, strict=True):
            keep(entry, "mesh", item.mesh)
            keep(entry, "texture", item.texture)
        # All is read before anything is written: `folder` may be the spec's own.
        for target, content in contents.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            (folder / target).write_bytes(content)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.name}.yaml"
        file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        return file

    def _geometry(self, item: ObjectClass) -> ObjectGeometry:
        if item.mesh is not None:
            return mesh_geometry(self.resolve(item.mesh), scale=item.scale, up_axis=item.up_axis)
        assert item.shape is not None and item.size is not None
        return shape_geometry(item.shape, item.size)

    def _check_files(self, source: str) -> None:
        self._check_texture(f"{source}: table.texture", self.table.texture)
        for index, item in enumerate(self.objects):
            key = f"{source}: objects[{index}] ({item.name})"
            self._check_texture(f"{key}.texture", item.texture)
            try:
                geometry = self._geometry(item)
            except GeometryError as error:
                raise SpecError(f"{key}.mesh: {error}") from None
            if not geometry.has_symmetry(item.symmetry_order):
                raise SpecError(
                    f"{key}.symmetry: its shape changes when turned"
                    f"{'' if item.symmetry_order == 0 else f' by 1/{item.symmetry} turn'}; "
                    "set `symmetry: none`, or the order that it has about its z axis"
                )
            if geometry.radius > min(self.table.half_size):
                raise SpecError(
                    f"{key}.{'mesh' if item.mesh else 'size'}: reaches {geometry.radius:.2f} m "
                    "from its origin, more than the table's half size "
                    f"{min(self.table.half_size):.2f} m; "
                    + (
                        "is the mesh in other units? set `scale` (0.001 for millimetres)"
                        if item.mesh
                        else "make it smaller; lengths are in metres"
                    )
                )
        if not self._fit():
            raise SpecError(
                f"{source}: count.max: {self.count.max} such objects do not fit on "
                f"+-{list(self.placement.extent)} m without overlap (fewer than "
                f"{LEAST_ACCEPTANCE:.1%} of random placements do); lower count.max, enlarge "
                "placement.extent, or set placement.no_overlap: false"
            )

    def _fit(self) -> bool:
        if not self.placement.no_overlap:
            return True
        extent, repeats = self.placement.extent, self.placement.repeats
        # A quick look first: the exact answer takes seconds when the table is overcrowded.
        quick = acceptance(self.footprints, extent, self.count.max, repeats, samples=10_000)
        return quick > 0 and min(self.acceptances) >= LEAST_ACCEPTANCE

    def _check_texture(self, key: str, path: Path | None) -> None:
        if path is None:
            return
        file = self.resolve(path)
        if not file.is_file():
            raise SpecError(
                f"{key}: no file {file}; correct the path (it starts at the YAML's folder) or "
                "leave it out"
            )
        try:
            read_texture(file)
        except (OSError, ValueError) as error:
            raise SpecError(
                f"{key}: {file} is not a picture that can be read ({error}); give a PNG or JPEG"
            ) from None


def _self_contained(file: Path) -> bytes:
    """What is in a file; a glTF gets the buffers beside it written into it."""
    content = file.read_bytes()
    if file.suffix.lower() != ".gltf":
        return content
    tree = json.loads(content)
    for buffer in tree.get("buffers", []):
        if not buffer.get("uri", "data:").startswith("data:"):
            beside = (file.parent / unquote(buffer["uri"])).read_bytes()
            encoded = base64.b64encode(beside).decode("ascii")
            buffer["uri"] = f"data:application/octet-stream;base64,{encoded}"
    return json.dumps(tree).encode()


def _free_name(taken: dict[Path, bytes], wanted: Path, content: bytes) -> Path:
    """`wanted`, numbered if another file has that name (in any case: some disks ignore case)."""
    names = {str(path).casefold(): other for path, other in taken.items()}
    target, number = wanted, 2
    while names.get(str(target).casefold(), content) != content:
        target, number = wanted.with_stem(f"{wanted.stem}-{number}"), number + 1
    return target


def _explain(source: str, error: Any) -> str:
    """One line for one of pydantic's errors: file, key, what is wrong, how to mend it."""
    key = ""
    for part in error["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    mends = {
        "extra_forbidden": "unknown key; remove it or correct its spelling",
        "missing": "missing; add it",
        "string_pattern_mismatch": "must consist of letters, digits and . _ - only",
        "too_short": "needs one entry at least",
        "tuple_type": "must be a list",
        "dict_type": "must be a mapping",
        "model_type": "must be a mapping",
    }
    message = mends.get(error["type"], error["msg"].removeprefix("Value error, "))
    message = message.replace("Input should be", "must be")
    if message.startswith("must") and error["type"] != "value_error":
        given = repr(error["input"])
        message += f", not {given if len(given) < 60 else type(error['input']).__name__}"
    return f"{source}: {key}: {message}" if key else f"{source}: {message}"

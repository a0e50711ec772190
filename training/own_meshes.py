"""From mesh files to objects that stand on a table: what was guessed of each, and how surely.

Every guess can be overruled, for one object or for all. What is in doubt is warned of, with the
option that settles it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renderer.meshes import has_symmetry, turned_upright
from training.bake import Baked, bake
from training.surface import ColouredMesh, load_coloured
from training.turning import Turning, find_turning
from training.units import METRES, USUAL, UnitGuess, guess_unit
from training.upright import UpAxis, UpGuess, guess_up, shape_scores
from training.wishes import Colour, Wishes, check_names, wish_for

Floats = NDArray[np.float64]

SURE = 0.9  # probability; a guess with less is warned of

# What files are called when their folder says what they are.
UNTELLING = {"textured", "nontextured", "model", "mesh", "scene", "object", "visual", "base"}

# Of objects whose files say none, told apart easily, the first ones best.
COLOURS: tuple[Colour, ...] = (
    (0.85, 0.32, 0.22),
    (0.20, 0.45, 0.80),
    (0.95, 0.80, 0.25),
    (0.25, 0.65, 0.40),
    (0.60, 0.35, 0.70),
    (0.90, 0.90, 0.92),
    (0.15, 0.15, 0.18),
    (0.40, 0.80, 0.85),
)


@dataclass(frozen=True, eq=False)
class OwnObject:
    """One object: its file, what was found out of it, and what is written of it."""

    name: str
    file: Path
    unit: UnitGuess
    up: UpGuess
    turning: Turning
    baked: Baked
    transform: Floats  # [4, 4], from the file's points to the object's, m
    mean: Floats  # [3] RGB
    warnings: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """What there is to know of where it came from, as JSON has it."""
        return {
            "name": self.name,
            "file": str(self.file),
            "unit": self.unit.unit,
            "metres_per_unit": self.unit.metres,
            "unit_probability": round(self.unit.sure, 4),
            "up_axis": self.up.axis,
            "up_axis_probability": round(self.up.sure, 4),
            "symmetry": self.turning.name,
            "size_m": [round(float(side), 5) for side in self.baked.mesh.extents],
            "triangles": [self.baked.triangles, len(self.baked.mesh.faces)],
            "surface_off_by_m": round(self.baked.off, 6),
            "mesh_to_object": np.round(self.transform, 9).tolist(),
            "warnings": list(self.warnings),
        }


def named_files(given: Sequence[str]) -> dict[str, Path]:
    """The files by the names of their objects.

    Args:
        given: files, or NAME=FILE.

    Raises:
        ValueError: two have one name.
    """
    found: dict[str, Path] = {}
    plain = [item for item in given if "=" not in item]
    stems = [Path(item).stem for item in plain]
    for item in given:
        name, _, file = item.rpartition("=")
        path = Path(file)
        if not name:
            telling = path.stem.lower() not in UNTELLING and stems.count(path.stem) == 1
            parts = [path.stem] if telling else [path.resolve().parent.name]
            if not telling and path.stem.lower() not in UNTELLING:
                parts.append(path.stem)
            name = "-".join(parts)
        name = plain_name(name)
        if name in found:
            raise ValueError(
                f"--mesh {item}: another file is named {name!r} already; name it: --mesh "
                f"OTHER={file}"
            )
        found[name] = path
    return found


def plain_name(name: str) -> str:
    """The name in the letters that a SceneSpec takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_") or "object"


def take_in(
    files: dict[str, Path], wishes: Wishes, *, tell: Callable[[str], None] = lambda name: None
) -> list[OwnObject]:
    """Makes objects of mesh files.

    Args:
        files: by the objects' names.
        wishes: of the user.
        tell: is called with the name of each file as its turn comes.

    Raises:
        MeshError: a file cannot be used.
        ValueError: a wish names no object, or an order that the mesh has not.
    """
    check_names(files, wishes)
    loaded, scores = {}, {}
    for name, file in files.items():
        tell(name)
        loaded[name] = load_coloured(file)
        scores[name] = shape_scores(loaded[name].mesh)
    units: dict[str, UnitGuess] = {}
    ups: dict[str, UpGuess] = {}
    for names in _origins(files).values():
        suffix = files[names[0]].suffix.lower()
        longest = [float(loaded[name].mesh.extents.max()) for name in names]
        unit = guess_unit(longest, suffix)
        units |= dict.fromkeys(names, unit)
        guesses = guess_up([scores[name] for name in names], suffix)
        ups |= dict(zip(names, guesses, strict=True))
    found: list[OwnObject] = []
    for name, file in files.items():
        tell(name)
        made = _made(name, file, loaded[name], units[name], ups[name], wishes, found)
        found.append(made)
    return found


def _made(
    name: str,
    file: Path,
    item: ColouredMesh,
    unit: UnitGuess,
    up: UpGuess,
    wishes: Wishes,
    before: Sequence[OwnObject],
) -> OwnObject:
    warnings = [f"{note}; its colour is made up: --colour {name}=R,G,B" for note in item.notes]
    longest = float(item.mesh.extents.max())
    size, wish = wish_for(wishes.size, name), wish_for(wishes.unit, name)
    if size is not None:
        unit = UnitGuess(None, size / longest, 1.0)
    elif wish is not None:
        unit = UnitGuess(wish, METRES[wish], 1.0)
    else:
        warnings += _unit_doubts(name, unit, longest)
    axis = wish_for(wishes.up, name)
    if axis is not None:
        up = UpGuess(axis, 1.0)
    elif up.sure < SURE:
        warnings.append(
            f"that {up.axis} is its upper side is {up.sure:.0%} sure; look at the preview, and say "
            f"otherwise: --up {name}=z"
        )
    colour = wish_for(wishes.colour, name)
    if colour is None and not item.coloured:
        colour = _unlike([other.mean for other in before])
        if not item.notes:
            warnings.append(
                f"its file says no colour, so it was given one: --colour {name}=R,G,B, from 0 to 1"
            )
    if colour is not None:
        item = item.painted(colour)
    standing, transform = _stood(item, unit.metres, up.axis)
    turning = find_turning(standing)
    centre = turning.centre if turning.symmetric_shape else _box_centre(standing)
    moved = np.eye(4)
    moved[:2, 3] = -centre[0], -centre[1]
    standing, transform = standing.moved(moved), moved @ transform
    baked = bake(standing)
    order = wish_for(wishes.symmetry, name)
    if order is not None:
        turning = replace(turning, order=order, because="")
    if not has_symmetry(baked.mesh, turning.order or None):
        if order is not None:
            raise ValueError(
                f"--symmetry {name}={turning.name}: the shape of {file} changes by such turns; "
                "leave it out, or give the order that it has"
            )
        turning = replace(turning, order=1, because=f"{turning.name} is what it nearly is")
    if turning.because:
        warnings.append(
            f"its symmetry, {turning.name}, is in doubt: {turning.because}; say otherwise: "
            f"--symmetry {name}=none, or continuous, or its order"
        )
    _, _, seen = standing.samples(2000, seed=5)
    return OwnObject(
        name, file, unit, up, turning, baked, transform, seen.mean(axis=0), tuple(warnings)
    )


def _unit_doubts(name: str, unit: UnitGuess, longest: float) -> list[str]:
    """What to say of a guess of the unit."""
    size = unit.metres * longest
    if unit.unit is None:
        return [
            f"its size, {longest:.3g}, makes sense in no unit, so it was made {100 * size:.2g} cm "
            f"long (its like from the same folder to scale): --size {name}=METRES, or --unit"
        ]
    if unit.sure < SURE or not USUAL[0] <= size <= USUAL[1]:
        return [
            f"that its unit is {unit.unit} is {unit.sure:.0%} sure; that makes it "
            f"{100 * size:.2g} cm long. Say otherwise: --unit {name}=mm, or --size {name}=METRES"
        ]
    return []


def _stood(item: ColouredMesh, metres: float, axis: UpAxis) -> tuple[ColouredMesh, Floats]:
    """The mesh in metres, upright, its lowest point at z = 0; and what took it there."""
    matrix = np.eye(4)
    matrix[:3, :3] = metres * turned_upright(np.eye(3), axis).T
    turned = item.moved(matrix)
    lift = np.eye(4)
    lift[2, 3] = -np.asarray(turned.mesh.vertices)[np.unique(turned.mesh.faces), 2].min()
    return turned.moved(lift), lift @ matrix


def _box_centre(item: ColouredMesh) -> tuple[float, float]:
    used = np.asarray(item.mesh.vertices)[np.unique(item.mesh.faces)]
    x, y, _ = (used.min(axis=0) + used.max(axis=0)) / 2
    return float(x), float(y)


def _origins(files: dict[str, Path]) -> dict[tuple[str, Path], list[str]]:
    """Names of the objects by where their files come from, which share habits.

    A folder and a format; of folders with one mesh each, the folder that they are all in.
    """
    alone: dict[tuple[str, Path], int] = defaultdict(int)
    for path in files.values():
        alone[path.suffix.lower(), path.resolve().parent] += 1
    found = defaultdict(list)
    for name, path in files.items():
        suffix, folder = path.suffix.lower(), path.resolve().parent
        found[suffix, folder if alone[suffix, folder] > 1 else folder.parent].append(name)
    return dict(found)


def _unlike(taken: Sequence[Floats]) -> Colour:
    """The first colour that is none of those taken, or else the farthest from them."""

    def gap(colour: Colour) -> float:
        return min((float(np.linalg.norm(np.array(colour) - one)) for one in taken), default=9.0)

    free = [colour for colour in COLOURS if gap(colour) > 0.3]
    return free[0] if free else max(COLOURS, key=gap)

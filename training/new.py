"""`python -m training new`: a SceneSpec for a user's own meshes, and what was guessed for it."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from renderer.geometry import ObjectGeometry, mesh_geometry
from renderer.spec import Camera, SceneSpec
from training.defaults import default_network
from training.layout import (
    AZIMUTH,
    ELEVATION,
    FOVY,
    Layout,
    arrange,
    in_sight,
    stand_back,
    table_colour,
)
from training.own_meshes import OwnObject, plain_name, take_in
from training.wishes import Wishes

MOST = 16  # objects on a table, that a SceneSpec takes
RECORD = "meshes.json"  # where the objects came from


@dataclass(frozen=True, eq=False)
class NewWorld:
    """What `new` has made."""

    file: Path  # the SceneSpec
    spec: SceneSpec
    objects: list[OwnObject]
    layout: Layout
    complaints: tuple[str, ...]  # about what the camera sees

    @property
    def warnings(self) -> list[str]:
        """What to look at, each with how to change it."""
        of_objects = [f"{item.name}: {text}" for item in self.objects for text in item.warnings]
        return [*of_objects, *self.complaints]


def make(
    folder: Path,
    files: dict[str, Path],
    wishes: Wishes,
    *,
    count: int,
    camera: dict[str, Any] | None = None,
    command: Sequence[str] = (),
    tell: Callable[[str], None] = lambda name: None,
) -> NewWorld:
    """Writes a SceneSpec of these meshes to `folder`, with all that it needs.

    Args:
        folder: made when missing; the SceneSpec gets its name.
        files: by the objects' names.
        wishes: of the user, on how to take the meshes.
        count: greatest number of objects on the table.
        camera: the keys of the SceneSpec's camera that are known, of `read_camera`.
        command: that brought this about, for the record.
        tell: is called with the name of each object as its turn comes.

    Raises:
        MeshError: a file cannot be used.
        ValueError: a wish cannot be met.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"--count {count}: must be from 1 to {MOST}")
    objects = take_in(files, wishes, tell=tell)
    written = [item.baked.write(folder, item.name) for item in objects]
    geometries = [
        mesh_geometry((folder / mesh).resolve(), scale=1.0, up_axis="z") for mesh, _ in written
    ]
    layout = arrange(geometries, count)
    known = camera or {}
    if "distance" in known:
        layout, complaints = in_sight(geometries, layout, count, Camera(**known))
    else:
        known, complaints = _camera(geometries, layout, known), []
    colour = table_colour([item.mean for item in objects])
    name = plain_name(folder.resolve().name)
    file = folder / f"{name}.yaml"
    text = _yaml(name, objects, written, layout, known, colour, count, command)
    file.write_text(text, encoding="utf-8")
    record = [item.record() for item in objects]
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return NewWorld(file, SceneSpec.load(file), objects, layout, tuple(complaints))


def table(world: NewWorld) -> Table:
    """What was found out about each mesh, for a terminal."""
    columns = ("object", "unit", "up", "size, cm", "symmetry", "triangles", "surface off by")
    shown = Table(*columns, title=str(world.file))
    for item in world.objects:
        unit = item.unit.unit or f"{item.unit.metres:.3g} m"
        before, after = item.baked.triangles, len(item.baked.mesh.faces)
        shown.add_row(
            item.name,
            f"{unit} ({item.unit.sure:.0%})",
            f"{item.up.axis} ({item.up.sure:.0%})",
            " x ".join(f"{100 * side:.3g}" for side in item.baked.mesh.extents),
            item.turning.name + (" ?" if item.turning.because else ""),
            f"{after}" if after == before else f"{after} of {before}",
            f"{1000 * item.baked.off:.2g} mm" if item.baked.off else "-",
        )
    return shown


def what_next(world: NewWorld) -> str:
    """How large the world came out, and the commands that follow."""
    spec, height = world.spec, default_network(world.spec).height
    side = 200 * spec.table.half_size[0]
    pixel = 200 * spec.camera.distance * math.tan(math.radians(spec.camera.fovy_deg) / 2) / height
    return (
        f"The table is {side:.3g} cm wide, the camera {spec.camera.distance:g} m away; a pixel of "
        f"the network's input shows {pixel:.2g} cm. {spec.count.max} objects thrown at random find "
        f"room {world.layout.room:.0%} of the time.\n"
        f"Look at it:  python -m training preview {shlex.quote(str(world.file))}\n"
        f"Train on it: python -m training train {shlex.quote(str(world.file))} --out "
        f"{shlex.quote(f'checkpoints/{spec.name}')}"
    )


def _camera(
    geometries: Sequence[ObjectGeometry], layout: Layout, known: dict[str, Any]
) -> dict[str, Any]:
    """The keys of a camera that sees the table from before it, with the lens that is known."""
    keys: dict[str, Any] = {
        "target": (0.0, 0.0, 0.0),
        "elevation_deg": ELEVATION,
        "fovy_deg": FOVY,
        "azimuth_deg": AZIMUTH,
        **known,
    }
    return {**keys, "distance": stand_back(geometries, layout.extent, keys)}


def _yaml(
    name: str,
    objects: Sequence[OwnObject],
    written: Sequence[tuple[str, str | None]],
    layout: Layout,
    camera: dict[str, Any],
    table: tuple[float, float, float],
    count: int,
    command: Sequence[str],
) -> str:
    """The SceneSpec, with comments for whoever edits it."""
    half, extent = layout.half_size, list(layout.extent)
    lines = [
        "# Made by `python -m training new`. Metres and degrees; the origin is the centre of the",
        "# table top, z up. Where the meshes came from and how they were turned: meshes.json.",
    ]
    if command:
        lines.append(f"# {shlex.join(command)}")
    lines += [
        f"name: {_value(name)}",
        f"table: {{half_size: [{half:g}, {half:g}], colour: {_list(table)}}}",
        f"camera: {_mapping(camera)}",
        "objects:",
    ]
    for item, (mesh, texture) in zip(objects, written, strict=True):
        entry: dict[str, Any] = {"name": item.name, "mesh": mesh, "colour": item.baked.colour}
        if texture is not None:
            entry["texture"] = texture
        order = item.turning.order
        entry["symmetry"] = {0: "continuous", 1: "none"}.get(order, order)
        sides = " x ".join(f"{100 * side:.3g}" for side in item.baked.mesh.extents)
        lines.append(f"  - {_mapping(entry)}  # {sides} cm")
    lines += [
        f"count: {{max: {count}}}  # 0 to {count} objects, each number as often",
        f"placement: {{extent: {_list(extent)}, no_overlap: true, repeats: true}}",
        "nuisance:  # what pictures of a real camera differ by besides; the README lists the rest",
        "  noise: {sensor_std: [0.0, 0.02], blur_px: [0.0, 0.8], gain: [0.93, 1.07]}",
    ]
    return "\n".join(lines) + "\n"


def _mapping(entries: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {_value(value)}" for key, value in entries.items()) + "}"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return _list(value)
    if isinstance(value, str) and yaml.safe_load(value) != value:
        return json.dumps(value)  # what YAML would take for a number, or for yes and no
    return f"{round(value, 6):.10g}" if isinstance(value, float) else str(value)


def _list(values: Sequence[Any]) -> str:
    return "[" + ", ".join(_value(value) for value in values) + "]"

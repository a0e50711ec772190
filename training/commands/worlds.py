"""Commands that make worlds, show them and draw their scenes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from training.commands.terminal import progress, warn
from training.experiments import find_experiment


def new(
    folder: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    mesh: tuple[str, ...],
    count: int = 3,
    camera: Path | None = None,
    unit: tuple[str, ...] = (),
    size: tuple[str, ...] = (),
    up: tuple[str, ...] = (),
    symmetry: tuple[str, ...] = (),
    colour: tuple[str, ...] = (),
    overwrite: bool = False,
) -> None:
    """Write a SceneSpec for your own meshes: OBJ, STL, PLY, GLB or glTF, with their colours.

    Units, upright axes and symmetries are guessed from shapes, sizes and colours. What is in doubt
    is said, with the option that settles it. An option is VALUE for all objects, or NAME=VALUE.

    Args:
        folder: for the SceneSpec, meshes and textures.
        mesh: files, or NAME=FILE.
        count: greatest number of objects on the table.
        camera: a calibration (YAML or JSON): K, image_size and, if the camera stands fast,
            table_in_camera, 4 x 4, from the table's frame to the optical one, in metres.
        unit: mm, cm, inch or m.
        size: length of the longest side in metres, instead of a unit.
        up: the file's axis that points up: x, y, z, -x, -y or -z.
        symmetry: about the vertical: none, continuous, or n when n-fold.
        colour: red,green,blue from 0 to 1, instead of the file's colours.
        overwrite: write to a folder that holds a SceneSpec already.
    """
    from training import new as module
    from training.camera_file import read_camera
    from training.own_meshes import named_files
    from training.wishes import wishes_of

    if not overwrite and next(folder.glob("*.yaml"), None) is not None:
        raise ValueError(f"{folder}: holds a SceneSpec already; choose another, or --overwrite")
    console = Console()
    with console.status("reading meshes") as status:
        world = module.make(
            folder,
            named_files(mesh),
            wishes_of(unit=unit, size=size, up=up, symmetry=symmetry, colour=colour),
            count=count,
            camera=None if camera is None else read_camera(camera),
            command=["python", "-m", "training", *sys.argv[1:]],
            tell=lambda name: status.update(f"looking at {name}"),
        )
    console.print(module.table(world))
    warn(world.warnings)
    console.print(module.what_next(world), soft_wrap=True, highlight=False)


def preview(
    spec: Annotated[str, tyro.conf.Positional],
    /,
    *,
    out: Path | None = None,
    scenes: int = 8,
    seed: int = 0,
    backend: Literal["auto", "opengl", "raycast"] = "auto",
) -> None:
    """Draw a contact sheet of a SceneSpec: each object from eight sides, scenes, and warnings.

    Warns of what a network could not see: objects that are too small for it, or too much like the
    table or each other, turns that do not show, and tables on which there is no room.

    Args:
        spec: a SceneSpec's YAML file, or the name of a built-in one.
        out: a PNG or JPEG file; preview.png beside the YAML file when not given.
        scenes: how many to draw.
        seed: of the scenes.
        backend: that draws.
    """
    from renderer.spec import BUILTIN, SceneSpec
    from training.preview import draw_preview
    from training.sightings import look

    if scenes < 1:
        raise ValueError("--scenes must be at least 1")
    world = SceneSpec.load(spec)
    if out is None:
        folder = Path() if world.folder == BUILTIN else world.folder
        out = folder / "preview.png"
    sightings = look(world, backend=backend)
    draw_preview(world, sightings, out, scenes=scenes, seed=seed, backend=backend)
    warn(sightings.warnings)
    print(f"{out}: {len(sightings.warnings) or 'no'} warning(s)")


def render(
    spec: Annotated[str, tyro.conf.Positional],
    /,
    *,
    out: Path,
    scenes: int = 16,
    seed: int = 0,
    height: int = 640,
    backend: Literal["auto", "opengl", "raycast"] = "auto",
    supersample: int = 2,
    nuisance: bool = False,
) -> None:
    """Draw sampled scenes as PNG, each with its truth as JSON beside it.

    Args:
        spec: a SceneSpec's YAML file, or the name of a built-in one.
        out: folder for the pictures.
        scenes: how many.
        seed: of the scenes.
        height: of a picture in pixels; the camera's aspect gives its width.
        backend: that draws them.
        supersample: samples a pixel along each axis.
        nuisance: draw light, colours and camera, and spoil the pictures, as the SceneSpec says.
    """
    from renderer.spec import SceneSpec
    from training.photos import render_photos

    paths = render_photos(
        SceneSpec.load(spec),
        out,
        scenes=scenes,
        seed=seed,
        height=height,
        backend=backend,
        supersample=supersample,
        nuisance=nuisance,
    )
    print(f"{len(paths)} pictures in {out}")


def shards(
    spec: Annotated[str, tyro.conf.Positional],
    /,
    *,
    out: Path,
    scenes: int = 100_000,
    seed: int = 0,
    per_shard: int = 1024,
    processes: int | None = None,
    ray: str | None = None,
    backend: Literal["auto", "opengl", "raycast"] = "auto",
) -> None:
    """Draw scenes in advance, for `train --shards`; what was stopped goes on.

    Args:
        spec: a SceneSpec's YAML file, or the name of a built-in experiment.
        out: folder for the shards.
        scenes: how many. A run looks at 64 in each step, and at all of them again when it has seen
            the last.
        seed: of the scenes.
        per_shard: scenes in a file.
        processes: that draw; as many as cores when not given.
        ray: draw on a Ray cluster: its address, auto for the one of this machine, or local.
        backend: that draws.
    """
    from renderer.spec import SceneSpec
    from training.shard_drawing import draw_shards, manifest_for

    experiment = find_experiment(spec)
    manifest = manifest_for(
        experiment, out, scenes=scenes, seed=seed, per_shard=per_shard, backend=backend
    )
    Console().print(
        f"{manifest.scenes:,} scenes of {manifest.width} x {manifest.height} px in "
        f"{manifest.shards:,} shards, {manifest.bytes / 1e9:.2f} GB",
        highlight=False,
    )
    with progress("drawing", manifest.scenes, stays=True) as tick:
        drawn = draw_shards(
            SceneSpec.load(experiment.spec),
            manifest,
            out,
            processes=processes,
            ray=ray,
            tick=tick,
        )
    print(f"{out}: {drawn} shards drawn, {manifest.shards - drawn} were there")

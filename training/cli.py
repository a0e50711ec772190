"""The commands of `python -m training`."""

from __future__ import annotations

import sys
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from renderer.backend import BackendError
from training.experiments import (
    NetworkName,
    find_experiment,
    going_on,
    relearning,
    starting_point,
    vary,
)
from training.objectives import EstimatorName, ObjectiveName
from training.stopping import Stopping
from training.team import TeamError


def train(
    experiment: Annotated[str, tyro.conf.Positional],
    /,
    *,
    out: Path | None = None,
    objective: ObjectiveName | None = None,
    images: Path | None = None,
    shards: Path | None = None,
    start: Path | None = None,
    network: NetworkName | None = None,
    estimator: EstimatorName | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    until: Literal["good", "end"] | None = None,
    seed: int = 0,
    device: Literal["cpu", "cuda"] = "cpu",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    workers: int | None = None,
    threads: int | None = None,
) -> None:
    """Train a model; start again with the same arguments to continue a stopped run.

    By `torchrun --nproc-per-node N -m training train …` N processes, on as many machines as you
    like, share every batch; see docs/scaling.md.

    With a SceneSpec of your own it says how long that will take before it starts, ends when the
    model is good, within 90 minutes on this machine if you do not say otherwise, and leaves a
    folder that is ready to be served: calibrated, evaluated, with figures and a card.

    Args:
        experiment: name of a built-in experiment, or a SceneSpec's YAML file.
        out: folder of the checkpoint, its training state and TensorBoard logs; runs/NAME when not
            given.
        objective: sleep learns from scenes that the renderer drew, elbo from images alone, through
            the renderer, wake-sleep from both; supervised is the paper's baseline.
        images: folder with unlabelled photos of your own table, to learn from by wake-sleep. One in
            five is held out, and the model that explains those best is what is written to `out`.
        shards: folder of scenes that `shards` drew in advance, to learn from instead of drawing.
        start: checkpoint folder with the weights to begin with, of a model of the same objects;
            with `images`, if not given, the shipped model of the experiment's name.
        network: cells is ours; plain is the paper's, with labels in the order in which they come,
            plain-any the same with their order summed out, and slots the same with the objects in
            any of the slots, as the paper drew them.
        estimator: of the bound's gradient by discrete choices; nvil is the paper's, enumerate sums
            them out and needs the network of cells.
        minutes: train about this long.
        steps: train this many steps.
        until: end when held-out scenes are read well enough, or no better than before (good), or at
            the last step (end). When not given, good for a SceneSpec of your own if you name
            neither minutes nor steps.
        seed: of weights and scenes.
        device: where the network runs; a card draws its pictures as well.
        precision: of the convolutions; auto takes bfloat16 where the processor has units for it.
        workers: processes that render on the CPU; auto leaves the rest of the cores to the network,
            and starts none with a card.
        threads: of the network; 1 where other programs keep the cores busy. When not given, the
            cores that `workers` leaves.
    """
    from inference.checkpoint import load_checkpoint
    from training.loop import RunOptions
    from training.loop import train as run
    from training.own import RUNS, train_own
    from training.picture_experiments import PICTURE_EXPERIMENTS, with_estimator
    from training.rival_experiments import RIVAL_EXPERIMENTS
    from training.team import team_of_environment

    flat = experiment in PICTURE_EXPERIMENTS or experiment in RIVAL_EXPERIMENTS
    if shards is not None and (flat or images is not None):
        raise ValueError("--shards are of drawn scenes; leave them out, or --images")
    if until == "good" and (flat or images is not None):
        raise ValueError("--until good is for scenes that are drawn; give --until end, or steps")
    own = images is None and Path(experiment).is_file()
    if until is None:
        until = "good" if own and minutes is None and steps is None else "end"
    with team_of_environment(device) as team:
        options = RunOptions(
            out=out or RUNS / Path(experiment).stem,
            stopping=Stopping() if until == "good" else None,
            start=start,
            images=images,
            shards=shards,
            seed=seed,
            device=device,
            precision=precision,
            steps=steps,
            minutes=minutes,
            workers=workers,
            threads=threads,
            team=team,
        )
        if experiment in PICTURE_EXPERIMENTS:
            if objective is not None or network is not None:
                raise ValueError(
                    f"--objective and --network are for scenes; {experiment} learns from its images"
                )
            run(with_estimator(PICTURE_EXPERIMENTS[experiment], estimator), options)
            return
        if experiment in RIVAL_EXPERIMENTS:
            if objective is not None or network is not None or estimator is not None:
                raise ValueError(
                    f"--objective, --network and --estimator are for AIR; {experiment} is its rival"
                )
            run(RIVAL_EXPERIMENTS[experiment], options)
            return
        if images is not None and objective is None:
            objective = "wake-sleep"
        what = vary(find_experiment(experiment, objective), network, estimator)
        start = starting_point(experiment, start, images)
        if start is not None:
            known = load_checkpoint(start)
            what = relearning(what, known) if images is None else going_on(what, known)
            if team.leads:
                print(f"begins with the weights of {start}")
        options = replace(options, start=start)
        if own:
            train_own(what, options)
        else:
            run(what, options)


def evaluate(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    scenes: int | None = None,
    seed: int = 0,
    backend: Literal["auto", "opengl", "raycast"] = "auto",
    nuisance: bool = False,
    jpeg: bool = False,
    world: str | None = None,
    refine: int = 0,
    counts: tuple[int, ...] | None = None,
    json: Path | None = None,
) -> None:
    """Measure a checkpoint on fresh scenes, or a 2D one on images of digits it never saw.

    Args:
        checkpoint: its folder.
        scenes: how many to draw; 1,000 by default, 10,000 images of a 2D checkpoint.
        seed: of the scenes; training never draws any of them.
        backend: that draws them.
        nuisance: draw light, colours and camera, and spoil the pictures, as the SceneSpec says.
        jpeg: write them as JPEG of quality 60 to 98 as well, with `nuisance`.
        world: a SceneSpec to draw the scenes from instead of the checkpoint's own: the same objects
            and camera in another light, or in other colours.
        refine: measure the scenes after so many steps of render and compare as well; 5 are enough.
        counts: how many objects an image shows, each as likely, for a 2D checkpoint; as in its
            training by default.
        json: write the figures to this file.
    """
    from inference.checkpoint import load_checkpoint
    from inference.checkpoint2d import holds_glimpses, load_checkpoint2d
    from inference.checkpoint_rival import holds_rival, load_rival
    from renderer.spec import SceneSpec
    from training import evaluate as module
    from training import picture_evaluation, rival_evaluation

    flat, rival = holds_glimpses(checkpoint), holds_rival(checkpoint)
    if (flat or rival) and (nuisance or jpeg or world is not None or refine or backend != "auto"):
        raise ValueError(
            "--backend, --nuisance, --jpeg, --world and --refine are for scenes; "
            f"{checkpoint} is 2D"
        )
    n = scenes if scenes is not None else 10_000 if flat or rival else 1000
    if flat:
        figures = picture_evaluation.evaluate_pictures(
            load_checkpoint2d(checkpoint), images=n, seed=seed, counts=counts
        )
        rows, what = picture_evaluation.table(figures), f"{n} images, seed {seed}"
    elif rival:
        figures = rival_evaluation.evaluate_rival(
            load_rival(checkpoint), images=n, seed=seed, counts=counts
        )
        rows, what = rival_evaluation.table(figures), f"{n} images, seed {seed}"
    else:
        if counts is not None:
            raise ValueError(f"--counts is for 2D checkpoints; {checkpoint} is of scenes")
        figures = module.evaluate(
            load_checkpoint(checkpoint),
            scenes=n,
            seed=seed,
            backend=backend,
            nuisance=nuisance,
            jpeg=jpeg,
            world=None if world is None else SceneSpec.load(world),
            refine=refine,
        )
        rows, what = module.table(figures), f"{n} scenes, seed {seed}, {backend}"
    show = Table("figure", "value", title=f"{checkpoint}: {what}")
    for row in rows:
        show.add_row(*row)
    Console().print(show)
    if json is not None:
        json.write_text(dumps(figures, indent=1) + "\n", encoding="utf-8")


def calibrate(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    scenes: int = 4096,
    refined_scenes: int = 1024,
    seed: int = 0,
    backend: Literal["auto", "opengl", "raycast"] = "auto",
) -> None:
    """Fit what a checkpoint says of its own errors, on scenes that no evaluation draws.

    Standard deviations, covariances, scores and counts mean what they say afterwards, and it is
    known from where on a picture is unlike those that the model knows. Training ends with it.

    Args:
        checkpoint: its folder; its config.json is written anew.
        scenes: how many are drawn, a quarter of them with all of the SceneSpec's nuisance.
        refined_scenes: how many of these are refined as well, for refined answers.
        seed: of the scenes.
        backend: that draws them.
    """
    from inference.checkpoint import load_checkpoint, recalibrate
    from training import calibration as module

    found = load_checkpoint(checkpoint)
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("inferring", total=scenes + min(scenes, refined_scenes))
        fitted = module.calibrate(
            found.posterior,
            backend=backend,
            supersample=found.supersample,
            scenes=scenes,
            refined_scenes=refined_scenes,
            seed=seed,
            tick=lambda pictures: bar.advance(task, pictures),
        )
    if fitted.calibration is None:
        raise ValueError(
            f"{checkpoint}: found too few objects of {scenes} scenes to say how far it is off; "
            "train it longer, or give --scenes more"
        )
    recalibrate(checkpoint, fitted.calibration, fitted.limits)
    refined = fitted.calibration.refined_scenes
    print(f"{checkpoint}: calibrated on {scenes} scenes, {refined} of them refined")


def accuracy(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    out: Path = Path("docs"),
    scenes: int = 1000,
    seed: int = 7,
    refine: int = 5,
    novel: int = 256,
    backend: Literal["auto", "opengl", "raycast"] = "auto",
    meshes: Path | None = None,
) -> None:
    """Measure a checkpoint in every way, and make a page of it: accuracy.md, with its pictures.

    Args:
        checkpoint: its folder. What is measured on its own world is written to its evaluation.json.
        out: folder for the page.
        scenes: how many to draw, of its own world and of each other.
        seed: of the scenes; training never draws any of them.
        refine: steps of render and compare; 0 for none.
        novel: pictures of each kind of world that it does not know.
        backend: that draws its own world; the other one is measured as well.
        meshes: folder with meshes of foreign objects; AIR_DATA's by default.
    """
    from inference.checkpoint import EVALUATION, load_checkpoint
    from training import accuracy as module
    from training.accuracy_page import write_page

    found = load_checkpoint(checkpoint)
    measured = module.measure(
        found, scenes=scenes, seed=seed, refine=refine, novel=novel, backend=backend, meshes=meshes
    )
    print(write_page(found, measured, out))
    figures = module.evaluation(found, measured)
    (checkpoint / EVALUATION).write_text(dumps(figures, indent=1) + "\n", encoding="utf-8")


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
    for warning in world.warnings:
        console.print(f"[yellow]![/] {escape(warning)}", soft_wrap=True)
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
    console = Console()
    for warning in sightings.warnings:
        console.print(f"[yellow]![/] {escape(warning)}", soft_wrap=True)
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
    console = Console()
    console.print(
        f"{manifest.scenes:,} scenes of {manifest.width} x {manifest.height} px in "
        f"{manifest.shards:,} shards, {manifest.bytes / 1e9:.2f} GB",
        highlight=False,
    )
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("drawing", total=manifest.scenes)
        drawn = draw_shards(
            SceneSpec.load(experiment.spec),
            manifest,
            out,
            processes=processes,
            ray=ray,
            tick=lambda done: bar.advance(task, done),
        )
    print(f"{out}: {drawn} shards drawn, {manifest.shards - drawn} were there")


def descend(
    spec: Annotated[str, tyro.conf.Positional],
    /,
    *,
    checkpoint: Path | None = None,
    scenes: int = 40,
    seed: int = 0,
    restarts: int = 8,
    steps: int = 100,
    size: int = 64,
    backend: Literal["auto", "opengl", "raycast"] = "auto",
    json: Path | None = None,
) -> None:
    """Infer scenes without a network, by descent on the likelihood of each image.

    Args:
        spec: a SceneSpec's YAML file, or the name of a built-in one.
        checkpoint: folder of a network to measure on the same images.
        scenes: how many to draw; the first ones of `evaluate` with this seed.
        seed: of the scenes and of the starts.
        restarts: random starts for each image, of which the best counts.
        steps: of each descent.
        size: height of the images in pixels; the camera's aspect gives their width.
        backend: that draws them.
        json: write the figures to this file.
    """
    from inference.checkpoint import load_checkpoint
    from renderer.spec import SceneSpec
    from training import compare as module
    from training.descent import Descent

    descent = Descent(steps=steps)
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("descending", total=scenes * steps)
        figures = module.compare(
            SceneSpec.load(spec),
            scenes=scenes,
            seed=seed,
            restarts=restarts,
            descent=descent,
            size=size,
            backend=backend,
            checkpoint=None if checkpoint is None else load_checkpoint(checkpoint),
            tick=lambda images: bar.advance(task, images),
        )
    console.print(module.table(figures))
    if json is not None:
        json.write_text(dumps(figures, indent=1) + "\n", encoding="utf-8")


def represent(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    sizes: tuple[int, ...] | None = None,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Learn sums and order of two digits from few labels: by AIR's inferences, and by pixels.

    Args:
        checkpoint: folder of a 2D model that learned from digits.
        sizes: numbers of labelled images; 100 to 3,000 by default.
        seed: of the images and of the networks that learn from their labels.
        json: write the accuracies to this file.
    """
    from inference.checkpoint2d import load_checkpoint2d
    from training import representation as module

    found = load_checkpoint2d(checkpoint)
    chosen = module.SIZES if sizes is None else sizes
    figures = module.represent(found, sizes=chosen, seed=seed, tell=print)
    title = f"{checkpoint}: accuracy over labelled images, seed {seed}"
    show = Table("task", "seen", *map(str, figures["sizes"]), title=title)
    for row in module.table(figures):
        show.add_row(*row)
    Console().print(show)
    if json is not None:
        json.write_text(dumps(figures, indent=1) + "\n", encoding="utf-8")


def figures(
    directory: Annotated[Path, tyro.conf.Positional], /, *, out: Path | None = None
) -> None:
    """Make a page of tables and pictures from evaluated checkpoints.

    Args:
        directory: with checkpoint folders, anywhere below it, that hold an evaluation.json; and
            with what `descend` wrote on an experiment as descent-EXPERIMENT.json.
        out: folder for the pages, one of scenes and one of 2D models; `figures` in that directory
            when not given. What pages there tell of models that are gone stays on them.
    """
    from training.report import write_report
    from training.report2d import write_report2d

    pages = [
        write(directory, out or directory / "figures") for write in (write_report, write_report2d)
    ]
    if not any(pages):
        raise ValueError(
            f"{directory}: holds no evaluated checkpoint; after training, write one by "
            "`python -m training evaluate CHECKPOINT --json CHECKPOINT/evaluation.json`"
        )
    print("\n".join(str(page) for page in pages if page is not None))


def main() -> None:
    """Entry point: errors that a user can mend are one line, not a traceback."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                "train": train,
                "evaluate": evaluate,
                "calibrate": calibrate,
                "accuracy": accuracy,
                "figures": figures,
                "new": new,
                "preview": preview,
                "render": render,
                "shards": shards,
                "descend": descend,
                "represent": represent,
            },
            prog="python -m training",
        )
    except (ValueError, OSError, BackendError, FloatingPointError, TeamError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

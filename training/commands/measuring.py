"""Commands that measure models, and make pages of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from training.commands.terminal import progress, write_json


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
        write_json(json, figures)


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
    from inference.checkpoint import add_graph, load_checkpoint, recalibrate
    from training import calibration as module

    found = load_checkpoint(checkpoint)
    with progress("inferring", scenes + min(scenes, refined_scenes)) as tick:
        fitted = module.calibrate(
            found.posterior,
            backend=backend,
            supersample=found.supersample,
            scenes=scenes,
            refined_scenes=refined_scenes,
            seed=seed,
            tick=tick,
        )
    if fitted.calibration is None:
        raise ValueError(
            f"{checkpoint}: found too few objects of {scenes} scenes to say how far it is off; "
            "train it longer, or give --scenes more"
        )
    recalibrate(checkpoint, fitted.calibration, fitted.limits)
    if found.graph is not None:
        add_graph(checkpoint)
    refined = fitted.calibration.refined_scenes
    print(f"{checkpoint}: calibrated on {scenes} scenes, {refined} of them refined")


def graph(checkpoint: Annotated[Path, tyro.conf.Positional], /) -> None:
    """Write the graph of a checkpoint's network, with which it answers sooner on a CPU.

    Without it everything works as well. Training for a SceneSpec of one's own ends with it; it is
    gone when weights are written anew, and written anew by `calibrate`.

    Args:
        checkpoint: its folder, of a model of scenes.
    """
    from inference.checkpoint import add_graph

    add_graph(checkpoint)
    print(f"{checkpoint}: has a graph, whose answers are the network's")


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
    write_json(checkpoint / EVALUATION, figures)


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
    with progress("descending", scenes * steps) as tick:
        figures = module.compare(
            SceneSpec.load(spec),
            scenes=scenes,
            seed=seed,
            restarts=restarts,
            descent=descent,
            size=size,
            backend=backend,
            checkpoint=None if checkpoint is None else load_checkpoint(checkpoint),
            tick=tick,
        )
    Console().print(module.table(figures))
    if json is not None:
        write_json(json, figures)


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
        write_json(json, figures)

"""Direct descent and a network's single pass side by side, on the very same images."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from inference.checkpoint import Checkpoint
from renderer.backend import Renderer, open_renderer
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec
from training.descent import Descent, descend, draw_starts
from training.dreams import generator_for
from training.inferred import BATCH
from training.metrics import FOUND_WITHIN, accuracy, match

EXAMPLES = 12  # images whose scenes are written out: the first ones, not chosen ones


def compare(
    spec: SceneSpec,
    *,
    scenes: int,
    seed: int,
    restarts: int,
    descent: Descent | None = None,
    size: int = 64,
    backend: str = "auto",
    checkpoint: Checkpoint | None = None,
    tick: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Draws the scenes that `evaluate` draws, infers them by descent, and says how well.

    Args:
        spec: the world.
        scenes: how many.
        seed: of the scenes, and of the starts.
        restarts: R, random starts for each image.
        descent: how to descend.
        size: height of the images, px.
        backend: that draws.
        checkpoint: a network to be measured on the same images.
        tick: called after each step of descent with how many images it moved.

    Returns:
        The figures as plain data. `descent` and `network` (None without a checkpoint) hold those of
        `training.metrics.accuracy`, the share of images `solved`, and seconds;
        `descent.by_restarts` the same for the best of the first 1, 2, 4, … R starts.

    Raises:
        ValueError: numbers below 1, or a checkpoint of another world or size.
    """
    if scenes < 1:
        raise ValueError("--scenes must be at least 1")
    if size < 1:
        raise ValueError("--size must be at least 1")
    descent, supersample = descent or Descent(), 2
    width = max(1, round(size * spec.camera.aspect))
    if checkpoint is not None:
        _check(checkpoint, spec, size, width)
        trained = checkpoint.config.training.get("experiment", {})
        supersample = int(trained.get("supersample", supersample))
    renderer = open_renderer(
        spec, height=size, width=width, backend=backend, supersample=supersample
    )
    generator = generator_for("evaluate", seed)
    true = Scene.cat(
        [
            sample(spec, min(BATCH, scenes - start), generator=generator)
            for start in range(0, scenes, BATCH)
        ]
    )
    image = renderer.render(true)
    ends, log_joint, times = _descend(renderer, image, restarts, descent, seed, tick)

    def figures(inferred: Scene) -> dict[str, Any]:
        error = (renderer.render(inferred) - image).square().mean()
        return {
            "solved": float(solved(inferred, true).float().mean()),
            **accuracy(spec, inferred, true),
            "reconstruction_mse": float(error),
        }

    # Of the first r starts; the empty scene, in place 0, is always among the candidates.
    bests = {r: best_of(ends, log_joint, r + 1) for r in _doubling(restarts)}
    curve = [{"restarts": r, **figures(best)} for r, best in bests.items()]
    answers = {"descent": bests[restarts], "descent_of_one_start": bests[1]}
    result: dict[str, Any] = {
        "spec": spec.name,
        "height": size,
        "width": width,
        "scenes": scenes,
        "seed": seed,
        "backend": renderer.name,
        "supersample": supersample,
        "threads": torch.get_num_threads(),
        "restarts": restarts,
        "schedule": vars(descent),
        "descent": {**curve[-1], **times, "by_restarts": curve},
        "network": None,
    }
    if checkpoint is not None:
        answers["network"], times = _pass_once(checkpoint, image)
        result["network"] = {
            "checkpoint": checkpoint.name,
            "sha256": checkpoint.sha256,
            **figures(answers["network"]),
            **times,
        }
    named = {"true": true, **answers}
    records = {name: scene[:EXAMPLES].records(spec) for name, scene in named.items()}
    right = {name: solved(scene, true)[:EXAMPLES].tolist() for name, scene in answers.items()}
    result["examples"] = [
        {name: values[b] for name, values in records.items()}
        | {"solved": {name: values[b] for name, values in right.items()}}
        for b in range(min(scenes, EXAMPLES))
    ]
    return result


def solved(inferred: Scene, true: Scene) -> Tensor:
    """Whether the count is right, and each object of the right class within 5 cm: `[B]` bool."""
    pairs = match(inferred, true)
    same = inferred.identity[pairs.scene, pairs.inferred] == true.identity[pairs.scene, pairs.true]
    found = torch.bincount(
        pairs.scene[same & (pairs.distance <= FOUND_WITHIN)], minlength=len(true)
    )
    return (found == true.count) & (inferred.count == true.count)


def best_of(ends: Scene, log_joint: Tensor, first: int) -> Scene:
    """The most probable of the first candidates for each of B images.

    Args:
        ends: B * S scenes, those of one image side by side.
        log_joint: `[B, S]` nats.
        first: how many of the S to choose from.
    """
    images, candidates = log_joint.shape
    return ends[torch.arange(images) * candidates + log_joint[:, :first].argmax(1)]


def _descend(
    renderer: Renderer,
    image: Tensor,
    restarts: int,
    descent: Descent,
    seed: int,
    tick: Callable[[int], None],
) -> tuple[Scene, Tensor, dict[str, float]]:
    """Where all starts ended, their log joint `[B, R + 1]` nats, and seconds an image."""
    generator = generator_for("descend", seed)
    renderer.render(Scene.empty(1, renderer.spec.count.max))  # what is compiled for the first time
    watch = _Watch()
    parts = []
    for some in image.split(BATCH):
        start = draw_starts(renderer.spec, len(some), restarts, generator=generator)
        moved = partial(tick, len(some))
        parts.append(descend(renderer, some, start, descent, generator=generator, tick=moved))
    ends, log_joint = zip(*parts, strict=True)
    return Scene.cat(ends), torch.cat(log_joint), watch.read(len(image))


def _pass_once(checkpoint: Checkpoint, image: Tensor) -> tuple[Scene, dict[str, float]]:
    """What the network infers, and its seconds an image: in batches, and one by one (median)."""
    infer = checkpoint.posterior.infer
    infer(image[:BATCH])  # the first pass allocates
    watch = _Watch()
    scene = Scene.cat([infer(some).scene for some in image.split(BATCH)])
    times = watch.read(len(image))
    alone = []
    for one in image.split(1):
        begin = time.perf_counter()
        infer(one)
        alone.append(time.perf_counter() - begin)
    return scene, {**times, "seconds_per_image_one_by_one": statistics.median(alone)}


class _Watch:
    """Seconds on the wall, and of this process's threads: a busy machine stretches the former."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, images: int) -> dict[str, float]:
        """Since it was made, for each of so many images."""
        return {
            "seconds_per_image": (time.perf_counter() - self._wall) / images,
            "cpu_seconds_per_image": (time.process_time() - self._cpu) / images,
        }


def _check(checkpoint: Checkpoint, spec: SceneSpec, height: int, width: int) -> None:
    own, network = checkpoint.spec, checkpoint.posterior.config

    def world(of: SceneSpec) -> tuple[object, ...]:
        return of.name, of.camera, of.count, of.placement, of.class_names, of.symmetry_orders

    if world(own) != world(spec):
        raise ValueError(
            f"--checkpoint {checkpoint.folder}: was trained on another world ({own.name!r}) than "
            f"this {spec.name!r}; give a checkpoint of this one, or the SceneSpec in its scene/"
        )
    if (network.height, network.width) != (height, width):
        raise ValueError(
            f"--checkpoint {checkpoint.folder}: reads images of {network.width}x{network.height} "
            f"px, these have {width}x{height}; give --size {network.height}"
        )


def _doubling(greatest: int) -> list[int]:
    """1, 2, 4, … below `greatest`, and `greatest`."""
    return [*(1 << n for n in range(greatest.bit_length()) if 1 << n < greatest), greatest]


def table(figures: dict[str, Any]) -> Table:
    """The figures for people: descent by number of restarts, and the network."""
    title = "{spec}, {height} px, {scenes} scenes, seed {seed}, {backend}".format(**figures)
    shown = Table("figure", title=title)
    columns = list(figures["descent"]["by_restarts"])
    for column in columns:
        shown.add_column(f"best of {column['restarts']}", justify="right")
    columns[-1] = figures["descent"]
    if figures["network"] is not None:
        shown.add_column("network", justify="right")
        columns.append(figures["network"])
    for name in ("solved", "count_accuracy", "identity_accuracy", "recall", "precision"):
        shown.add_row(name, *(_number(column[name], ".3f") for column in columns))
    units = (
        ("position_error_m", 1e3, "mm"),
        ("yaw_error_rad", math.degrees(1), "deg"),
        ("azimuth_error_rad", math.degrees(1), "deg"),
    )
    for name, factor, unit in units:
        for key in ("median", "p90"):
            values = [column[name][key] for column in columns]
            label = f"{name.rsplit('_', 1)[0]} {key}, {unit}"
            if any(values):  # else nothing is found, or the camera does not move
                shown.add_row(label, *(_number(value, ".2f", factor) for value in values))
    shown.add_row("reconstruction_mse", *(f"{c['reconstruction_mse']:.6f}" for c in columns))
    for label, key in (
        ("in batches, ms an image", "seconds_per_image"),
        ("of which processors work, ms", "cpu_seconds_per_image"),
        ("one by one, ms an image", "seconds_per_image_one_by_one"),
    ):
        times = [column.get(key) for column in columns]
        if any(times):
            shown.add_row(label, *(_number(value, ".2f", 1e3) for value in times))
    return shown


def _number(value: float | None, form: str, factor: float = 1.0) -> str:
    return "" if value is None else format(factor * value, form)

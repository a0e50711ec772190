"""Fresh scenes, their pictures, and what a model says of them, before and after refinement."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from inference.calibrate import Calibration, grain_of
from inference.estimate import Estimate
from inference.network import InferenceNetwork
from inference.novelty import explained, worst_block
from inference.refine import Refined, Refinement
from inference.refine import refine as render_and_compare
from renderer.backend import Renderer, open_renderer
from renderer.jacobian import Drawing
from renderer.nuisance import photograph
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec
from renderer.variation import Noise

BATCH = 64
JPEG_QUALITY = (60, 98)  # from what looks bad to what looks untouched


@dataclass(frozen=True)
class Inferred:
    """What a model said of a set of scenes."""

    true: Scene
    estimate: Estimate
    reconstruction_mse: Tensor  # [B], of pixels in [0, 1]
    block: Tensor  # [B], see `inference.novelty.worst_block`
    explained: Tensor  # [B], see `inference.novelty.explained`
    milliseconds_per_image: float  # of the network alone, in batches
    pictures: Tensor | None = None  # [B, H, W, 3] uint8, that it saw, if they were kept
    refined: Inferred | None = None  # by render and compare, image by image
    refine_milliseconds: Tensor | None = None  # [B, 2] by the clock, and of all processors


def run(
    posterior: InferenceNetwork[Any],
    *,
    scenes: int,
    generator: torch.Generator,
    backend: str,
    supersample: int,
    nuisance: bool,
    calibration: Calibration | None = None,
    jpeg: bool = False,
    world: SceneSpec | None = None,
    refine: int = 0,
    keep: bool = False,
) -> tuple[Inferred, str]:
    """Draws and infers; returns what was inferred and the name of the backend that drew.

    Args:
        posterior: the network.
        scenes: how many.
        generator: of them.
        backend: that draws.
        supersample: samples a pixel along each axis.
        nuisance: whether all of the spec's nuisance is in the pictures.
        jpeg: whether they are written as JPEG besides, whatever the spec says of that.
        calibration: of the network, if it has one.
        world: where the scenes are, if not in the network's own.
        refine: steps of render and compare; 0 for none.
        keep: whether to keep the pictures.
    """
    renderer = open_like(posterior, backend, supersample)
    spec, outside = posterior.spec, renderer
    if jpeg:
        world = as_jpegs(world or spec)
    if world is not None:
        spec, outside = world, open_like(posterior, renderer.name, supersample, world)
    parts = []
    for true, pictures in draw(outside, scenes, generator=generator, nuisance=nuisance, spec=spec):
        part = infer(posterior, renderer, pictures, true, calibration)
        if refine:
            part = refine_all(posterior, part, renderer, pictures, refine, calibration)
        parts.append(replace(part, pictures=pictures if keep else None))
    return join(parts), renderer.name


def as_jpegs(spec: SceneSpec) -> SceneSpec:
    """The same world, whose photos are written as JPEG."""
    noise = (spec.nuisance.noise or Noise()).model_copy(update={"jpeg_quality": JPEG_QUALITY})
    nuisance = spec.nuisance.model_copy(update={"noise": noise})
    return spec.model_copy(update={"nuisance": nuisance})


def draw(
    renderer: Renderer,
    scenes: int,
    *,
    generator: torch.Generator,
    nuisance: bool,
    spec: SceneSpec | None = None,
) -> Iterator[tuple[Scene, Tensor]]:
    """Scenes of the prior with their pictures `[B, H, W, 3]` uint8, batch by batch."""
    for start in range(0, scenes, BATCH):
        size = min(BATCH, scenes - start)
        true = sample(spec or renderer.spec, size, generator=generator)
        if nuisance:
            yield true, photograph(renderer, true, generator=generator)
        else:
            yield true, renderer.render_bytes(true)


def as_image(pictures: Tensor) -> Tensor:
    """Pictures `[B, H, W, 3]` uint8 as the network takes them, `[B, 3, H, W]` in [0, 1]."""
    return pictures.permute(0, 3, 1, 2).float().div(255.0)


def open_like(
    posterior: InferenceNetwork[Any],
    backend: str,
    supersample: int,
    world: SceneSpec | None = None,
) -> Renderer:
    """A renderer of pictures as large as a network's."""
    return open_renderer(
        world or posterior.spec,
        height=posterior.config.height,
        width=posterior.config.width,
        backend=backend,
        supersample=supersample,
    )


def infer(
    posterior: InferenceNetwork[Any],
    renderer: Renderer,
    pictures: Tensor,
    true: Scene,
    calibration: Calibration | None = None,
) -> Inferred:
    """What a network says of pictures `[B, H, W, 3]` uint8 in a single pass."""
    image = as_image(pictures)
    start = time.perf_counter()
    estimate = posterior.infer(image.to(next(posterior.parameters()).device)).to("cpu")
    if calibration is not None:
        estimate = calibration.of_single(estimate, posterior.orders.cpu(), grain_of(image))
    spent = 1000 * (time.perf_counter() - start) / len(true)
    return Inferred(true, estimate, *_compared(renderer, image, estimate.scene), spent)


def refine_all(
    posterior: InferenceNetwork[Any],
    inferred: Inferred,
    renderer: Renderer,
    pictures: Tensor,
    steps: int,
    calibration: Calibration | None = None,
) -> Inferred:
    """The same with what render and compare makes of it, image by image."""
    image = as_image(pictures)
    found, milliseconds = refine_each(renderer, inferred.estimate, image, steps)
    estimate = found.estimate
    if calibration is not None:
        estimate = calibration.of_refined(found, posterior.orders.cpu(), grain_of(image))
    refined = Inferred(
        inferred.true,
        estimate,
        *_compared(renderer, image, estimate.scene),
        inferred.milliseconds_per_image,
    )
    return replace(inferred, refined=refined, refine_milliseconds=milliseconds)


def refine_each(
    renderer: Renderer, estimate: Estimate, image: Tensor, steps: int
) -> tuple[Refined, Tensor]:
    """Refines estimates one by one, as the service does.

    Returns:
        What was found, and `[B, 2]` milliseconds by the clock and of all processors.
    """
    drawing, options = Drawing(renderer), Refinement(steps=steps)
    found, milliseconds = [], []
    for b in range(len(image)):
        began = time.perf_counter(), time.process_time()
        found.append(
            render_and_compare(renderer.spec, estimate[b], image[b : b + 1], drawing, options)
        )
        ended = time.perf_counter(), time.process_time()
        milliseconds.append([1000 * (end - start) for start, end in zip(began, ended, strict=True)])
    return Refined.cat(found), torch.tensor(milliseconds)


def _compared(renderer: Renderer, image: Tensor, scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """Mean squared error, worst block, and share explained of images by scenes."""
    empty = replace(scene, presence=torch.zeros_like(scene.presence))
    drawn, table = renderer.render(Scene.cat([scene, empty])).split([len(scene), len(scene)])
    return (
        (drawn - image).square().mean(dim=(1, 2, 3)),
        worst_block(image, drawn),
        explained(image, drawn, table, scene.presence.any(1)),
    )


def join(parts: Sequence[Inferred]) -> Inferred:
    """One set from several."""
    refined = [part.refined for part in parts if part.refined is not None]
    spent = [part.refine_milliseconds for part in parts if part.refine_milliseconds is not None]
    kept = [part.pictures for part in parts if part.pictures is not None]
    times = sorted(part.milliseconds_per_image for part in parts)
    return Inferred(
        Scene.cat([part.true for part in parts]),
        Estimate.cat([part.estimate for part in parts]),
        torch.cat([part.reconstruction_mse for part in parts]),
        torch.cat([part.block for part in parts]),
        torch.cat([part.explained for part in parts]),
        times[len(times) // 2],
        torch.cat(kept) if kept else None,
        join(refined) if refined else None,
        torch.cat(spent) if spent else None,
    )

"""Fitting what a checkpoint says of its own errors, on scenes that are held out for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inference.calibrate import (
    Calibration,
    Claims,
    Laws,
    claims_of,
    claims_of_single,
    grain_of,
)
from inference.estimate import Estimate
from inference.fitting import FittingError, fit_law, fit_temperature
from inference.network import InferenceNetwork
from inference.novelty import Limits, doubt_of
from inference.refine import Refined
from renderer.backend import Renderer
from renderer.scene import Scene
from renderer.spec import SceneSpec
from training.dreams import generator_for
from training.inferred import (
    BATCH,
    as_image,
    draw,
    infer,
    join,
    open_like,
    refine_each,
)
from training.metrics import accuracy
from training.reliability import found, identity_calibration, mahalanobis

SCENES, REFINED_SCENES = 4096, 1024  # that a checkpoint is fitted on when nobody says otherwise
LEARNED_FROM = 100  # pictures of training, for each that its end is calibrated on
WORTH_REFINING = 0.5  # recall, from which on refinement starts from something
STEPS = 5  # of refinement
QUANTILE, MARGIN = 0.99, 1.5  # limits are so far above what so many of held-out pictures have
LEAST_BLOCK = 1e-4  # of a limit: what is rounded is not novel
LEAST_DOUBT = math.log(2)  # nats: an answer that hesitates between two says so by itself


class Fitted(NamedTuple):
    """What is written into a checkpoint."""

    calibration: Calibration | None  # None of a network that finds too little to fit anything
    limits: Limits


def calibrate(
    posterior: InferenceNetwork[Any],
    *,
    backend: str,
    supersample: int,
    scenes: int = SCENES,
    refined_scenes: int = REFINED_SCENES,
    seed: int = 0,
    photos: Tensor | None = None,
    tick: Callable[[int], None] = lambda pictures: None,
) -> Fitted:
    """Draws held-out scenes, a quarter with all of the nuisance, and fits what is said of them.

    Args:
        posterior: the network.
        backend: that draws.
        supersample: samples a pixel along each axis.
        scenes: how many for the single pass.
        refined_scenes: how many of them are refined as well; 0: refined answers are not calibrated,
            and neither are those of a network that finds less than half of the objects.
        seed: of the scenes; no evaluation draws any of them, whatever its seed.
        photos: `[M, 3, H, W]` uint8 of the model's own table, held out: limits allow for how well
            those are drawn.
        tick: told of pictures that are done.

    Raises:
        ValueError: no scenes.
    """
    if scenes < 1 or refined_scenes < 0:
        raise ValueError("--scenes must be at least 1, and --refined-scenes not below 0")
    spec, orders = posterior.spec, posterior.orders.cpu()
    generator = generator_for("calibrate", seed)
    renderer = open_like(posterior, backend, supersample)
    parts = []
    for true, pictures in _mixed(renderer, scenes, generator):
        part = infer(posterior, renderer, pictures, true)
        parts.append(replace(part, pictures=pictures))
        tick(len(true))
    raw = join(parts)
    assert raw.pictures is not None
    grain = torch.cat([grain_of(as_image(some)) for some in raw.pictures.split(BATCH)])
    known, estimate = None, raw.estimate
    with suppress(FittingError):
        single = fit_laws(spec, raw.estimate, raw.true, claims_of_single(raw.estimate), grain)
        known = Calibration(scenes=scenes, refined_scenes=0, seed=seed, single=single, refined=None)
        estimate = known.of_single(raw.estimate, orders, grain)
    limits = limits_of(raw.block, doubt_of(estimate))
    if photos is not None:
        limits = _allow_for(limits, posterior, known, renderer, photos)
    chosen = min(refined_scenes, scenes)
    recall = accuracy(spec, estimate.scene, raw.true)["recall"]
    if known is None or not chosen or not isinstance(recall, float) or recall < WORTH_REFINING:
        return Fitted(known, limits)
    refined = []
    for rows in torch.arange(chosen).split(BATCH):
        image = as_image(raw.pictures[rows])
        refined.append(refine_each(renderer, estimate[rows], image, STEPS)[0])
        tick(len(image))
    whole = Refined.cat(refined)
    laws = fit_laws(spec, whole.estimate, raw.true[:chosen], claims_of(whole), grain[:chosen])
    return Fitted(known.model_copy(update={"refined": laws, "refined_scenes": chosen}), limits)


def fit_laws(
    spec: SceneSpec, estimate: Estimate, true: Scene, claims: Claims, grain: Tensor
) -> Laws:
    """The laws of what was said of held-out scenes, given what is claimed of it.

    Args:
        spec: the world.
        estimate: what was said, uncalibrated.
        true: what was so.
        claims: standard deviations that were claimed.
        grain: `[B]`, of the pictures.

    Raises:
        FittingError: too few objects were found.
    """
    objects = found(spec, estimate, true)
    b, i, classes = objects.scene, objects.slot, len(spec.objects)
    place = [claim[b, i] for claim in claims.position]
    shows = objects.order != 0
    azimuth = (estimate.scene.azimuth - true.azimuth).abs()
    yaw_law = azimuth_law = None
    if bool(shows.any()):
        yaw_law = fit_law(
            [claim[b, i][shows] for claim in claims.yaw],
            objects.turned[shows].abs(),
            grain[b][shows],
            order=objects.order[shows],
            identity=objects.identity[shows],
            classes=classes,
            flips=True,
        )
    if spec.camera.moves:
        azimuth_law = fit_law(claims.azimuth, azimuth, grain, order=torch.ones_like(azimuth))
    return Laws(
        position=fit_law(
            place,
            mahalanobis(estimate, objects) * place[0],
            grain[b],
            identity=objects.identity,
            classes=classes,
        ),
        yaw=yaw_law,
        azimuth=azimuth_law,
        count_temperature=fit_temperature(estimate.count_probabilities, true.count),
        class_temperature=fit_temperature(*identity_calibration(spec, estimate, true)),
    )


def limits_of(block: Tensor, doubt: Tensor) -> Limits:
    """What known pictures stay below, given that of held-out ones."""
    most, unsure = (
        MARGIN * float(block.quantile(QUANTILE)),
        MARGIN * float(doubt.quantile(QUANTILE)),
    )
    return Limits(block=max(most, LEAST_BLOCK), doubt=max(unsure, LEAST_DOUBT))


def _allow_for(
    limits: Limits,
    posterior: InferenceNetwork[Any],
    calibration: Calibration | None,
    renderer: Renderer,
    photos: Tensor,
) -> Limits:
    """Limits that `photos` stay below as well; what they show nobody knows."""
    seen = join(
        [
            infer(
                posterior,
                renderer,
                some.permute(0, 2, 3, 1),
                Scene.empty(len(some), 1),  # not looked at
                calibration,
            )
            for some in photos.split(BATCH)
        ]
    )
    theirs = limits_of(seen.block, doubt_of(seen.estimate))
    return Limits(block=max(limits.block, theirs.block), doubt=max(limits.doubt, theirs.doubt))


def _mixed(
    renderer: Renderer, scenes: int, generator: torch.Generator
) -> Iterator[tuple[Scene, Tensor]]:
    """Batches of scenes and pictures, every fourth one with all of the nuisance.

    One law has to do for both. With as many of both it claimed too much of plain pictures, by two
    points of coverage, and too little of the others.
    """
    for index, start in enumerate(range(0, scenes, BATCH)):
        size = min(BATCH, scenes - start)
        yield from draw(renderer, size, generator=generator, nuisance=index % 4 == 3)

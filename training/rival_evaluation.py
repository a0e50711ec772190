"""Measures a rival on images that no training set shows, as AIR is measured."""

from __future__ import annotations

import time
from typing import Any

import torch

from inference.checkpoint_rival import RivalCheckpoint
from inference.rival import Rival
from training.dreams import generator_for
from training.picture_evaluation import evaluation_set, with_origin
from training.pictures import Pictures, load_pictures
from training.rival_experiments import RivalExperiment

CHUNK = 250  # images a pass


def evaluate_rival(
    checkpoint: RivalCheckpoint,
    *,
    images: int,
    seed: int,
    counts: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Says how well a rival explains images that it never saw: those of `evaluate_pictures`.

    Args:
        checkpoint: the model; how it was trained says which images it is for.
        images: how many.
        seed: of the images, and of what is drawn for the bound.
        counts: how many objects an image shows, each as likely; those of training by default.

    Returns:
        The figures as plain data: `elbo`, nats, one draw an image; `reconstruction_error`, the
        mean square of a pixel, grey levels of 1; and what they were measured on.

    Raises:
        DataError: the images cannot be made.
        ValueError: there is nothing to measure.
    """
    experiment = RivalExperiment.model_validate(checkpoint.config.training["experiment"])
    data = evaluation_set(experiment.data, images=images, seed=seed, counts=counts)
    pictures = load_pictures(data, "test")
    started = time.perf_counter()
    figures = measure_rival(checkpoint.model, pictures, generator=generator_for("evaluate", seed))
    spent = time.perf_counter() - started
    return with_origin(figures, checkpoint.config, data, seed=seed, seconds=spent)


@torch.no_grad()
def measure_rival(
    model: Rival, pictures: Pictures, *, generator: torch.Generator
) -> dict[str, Any]:
    """The bound and what is left to explain, of a set of images.

    Args:
        model: what explains them.
        pictures: the set.
        generator: of what is drawn for the bound.
    """
    device = next(model.parameters()).device
    bounds, errors = [], []
    for rows in torch.arange(len(pictures.count)).split(CHUNK):
        image = pictures.batch(rows).to(device)
        bounds.append(model.bound(image, generator=generator))
        errors.append((image - model.reconstruct(image)).square().mean((1, 2, 3)))
    return {
        "elbo": float(torch.cat(bounds).double().mean()),
        "reconstruction_error": float(torch.cat(errors).double().mean()),
    }


def table(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures as rows of name and value."""
    return [
        ("elbo", f"{figures['elbo']:.1f} nats"),
        ("reconstruction_error", f"{figures['reconstruction_error']:.5f}"),
        ("milliseconds_per_image", f"{figures['milliseconds_per_image']:.2f}"),
    ]

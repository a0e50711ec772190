"""Measures a 2D checkpoint on images that no training set shows."""

from __future__ import annotations

import time
from typing import Any

import torch

from inference.air2d import Air2d
from inference.checkpoint2d import Checkpoint2d
from inference.enumerated import enumerated_bound
from inference.folder import FolderConfig
from training import stroke_evaluation
from training.dreams import generator_for
from training.picture_experiments import PictureExperiment
from training.pictures import PictureData, Pictures, load_pictures
from training.stroke_evaluation import complexity_of, measure_strokes

CHUNK = 250  # images a pass
# What is added to the seed of a set of images that is measured on: training draws the others.
FRESH = 1_000_000


def evaluate_pictures(
    checkpoint: Checkpoint2d,
    *,
    images: int,
    seed: int,
    counts: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Makes images that training never saw, and says how well they are read.

    Args:
        checkpoint: the model; how it was trained says which images it is for.
        images: how many.
        seed: of the images, and of what is drawn for the bound.
        counts: how many objects an image shows, each as likely; those of training by default.

    Returns:
        The figures as plain data: those of `measure`, or of `measure_strokes` where images show
        characters; and what they were measured on.

    Raises:
        DataError: the images cannot be made.
        ValueError: there is nothing to measure.
    """
    experiment = PictureExperiment.model_validate(checkpoint.config.training["experiment"])
    data = evaluation_set(experiment.data, images=images, seed=seed, counts=counts)
    pictures = load_pictures(data, "test")
    strokes = complexity_of(data) if data.form == "omniglot" else None
    generator = generator_for("evaluate", seed)
    started = time.perf_counter()
    if strokes is None:
        figures = measure(checkpoint.model, pictures, generator=generator)
    else:
        figures = measure_strokes(checkpoint.model, pictures, strokes, generator=generator)
    spent = time.perf_counter() - started
    return with_origin(figures, checkpoint.config, data, seed=seed, seconds=spent)


def with_origin(
    figures: dict[str, Any],
    config: FolderConfig,
    data: PictureData,
    *,
    seed: int,
    seconds: float,
) -> dict[str, Any]:
    """Figures with what they are of: the model, the images, and how long each of these took.

    Args:
        figures: that were measured.
        config: of the checkpoint.
        data: the images.
        seed: of the evaluation.
        seconds: that measuring took.
    """
    return {
        "checkpoint": config.name,
        "sha256": config.sha256,
        "form": data.form,
        "counts": list(data.counts),
        "images": data.images,
        "seed": seed,
        **figures,
        "milliseconds_per_image": 1000 * seconds / data.images,
    }


def evaluation_set(
    data: PictureData, *, images: int, seed: int, counts: tuple[int, ...] | None = None
) -> PictureData:
    """The set of images that a model is measured on which learned from `data`.

    Args:
        data: what it learned from.
        images: how many.
        seed: of the images.
        counts: how many objects an image shows, each as likely; those of training by default.

    Raises:
        ValueError: there is nothing to measure, or another count than the one that there is.
    """
    if images < 1:
        raise ValueError("--scenes must be at least 1")
    if data.form == "omniglot" and counts not in (None, data.counts):
        raise ValueError("--counts is for images of several objects; here each is one character")
    return PictureData(
        form=data.form, counts=counts or data.counts, images=images, seed=FRESH + seed
    )


def watch(
    model: Air2d, data: PictureData, pictures: Pictures, *, generator: torch.Generator
) -> dict[str, Any]:
    """The figures that are worth watching while a model learns from `data`."""
    if data.form == "omniglot":
        strokes = measure_strokes(model, pictures, generator=generator)
        kept = {name: strokes[name] for name in ("steps_used", "reconstruction_error")}
        return {**kept, "bound": strokes["elbo"]}
    figures = measure(model, pictures, generator=generator)
    return {"count_accuracy": figures["count_accuracy"], "bound": figures["elbo"]}


@torch.no_grad()
def measure(model: Air2d, pictures: Pictures, *, generator: torch.Generator) -> dict[str, Any]:
    """How well a set of images is read.

    Args:
        model: what reads them.
        pictures: with how many objects each shows.
        generator: of what is drawn for the bound.

    Returns:
        `count_accuracy`, of the most probable count; `count_accuracy_by_count`; and `elbo`, nats,
        one draw an image.
    """
    device = next(model.parameters()).device
    right, bounds = [], []
    for rows in torch.arange(len(pictures.count)).split(CHUNK):
        image = pictures.batch(rows).to(device)
        right.append(model.infer(image).count.cpu() == pictures.count[rows])
        bounds.append(enumerated_bound(model, model.encode(image), generator=generator).bound)
    correct = torch.cat(right).double()
    return {
        "count_accuracy": float(correct.mean()),
        "count_accuracy_by_count": {
            str(n): float(correct[pictures.count == n].mean())
            for n in pictures.count.unique().tolist()
        },
        "elbo": float(torch.cat(bounds).double().mean()),
    }


def table(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures as rows of name and value."""
    if "steps_shares" in figures:
        return stroke_evaluation.table(figures)
    by_count = figures["count_accuracy_by_count"].items()
    return [
        ("count_accuracy", f"{figures['count_accuracy']:.4f}"),
        *((f"count_accuracy of {n}", f"{value:.4f}") for n, value in by_count),
        ("elbo", f"{figures['elbo']:.1f} nats"),
        ("milliseconds_per_image", f"{figures['milliseconds_per_image']:.2f}"),
    ]

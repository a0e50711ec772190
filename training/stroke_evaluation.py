"""Measures what AIR makes of characters: steps like strokes, more of them for what is complex.

Nobody says how many strokes a character has, so there is no count to be right about. What there is:
how well the steps explain the drawing, one after the other, and whether complex drawings take more
of them, by measures of complexity that know the drawing alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from inference.air2d import Air2d
from inference.enumerated import enumerated_bound
from training.complexity import Complexity, measure_complexity
from training.omniglot import choose, read_drawings
from training.pictures import PictureData, Pictures, image_numbers

CHUNK = 250  # images a pass


@torch.no_grad()
def measure_strokes(
    model: Air2d,
    pictures: Pictures,
    complexity: Complexity | None = None,
    *,
    generator: torch.Generator,
) -> dict[str, Any]:
    """The bound, the steps that are used, and what is left to explain after each.

    Args:
        model: what reads the images.
        pictures: of characters.
        complexity: of these drawings, to be compared with the steps that they take.
        generator: of what is drawn for the bound.

    Returns:
        `elbo`, nats, one draw an image; `steps_used`, the mean; `steps_shares`, of images by the
        most probable number of steps; `reconstruction_error`, the mean square of a pixel with
        that many steps, grey levels of 1; `reconstruction_error_by_step`, with 0 to K of them;
        and with complexities `rank_correlation`, Spearman's, of each measure with the steps used,
        or null if these are all the same, and the `complexity_by_steps`, mean of each measure.
    """
    device = next(model.parameters()).device
    steps, bounds, own, by_step = [], [], [], []
    for rows in torch.arange(len(pictures.count)).split(CHUNK):
        image = pictures.batch(rows).to(device)
        estimate = model.infer(image)
        steps.append(estimate.count.cpu())
        bounds.append(enumerated_bound(model, model.encode(image), generator=generator).bound)
        drawn = estimate.layers.cumsum(1)
        canvases = torch.cat([torch.zeros_like(drawn[:, :1]), drawn], 1)
        error = (image[:, None] - canvases).square().mean((2, 3, 4))  # [B, K + 1]
        by_step.append(error)
        own.append(error.gather(1, estimate.count[:, None])[:, 0])
    used = torch.cat(steps).numpy()
    figures: dict[str, Any] = {
        "elbo": float(torch.cat(bounds).double().mean()),
        "steps_used": float(used.mean()),
        "steps_shares": {str(n): float((used == n).mean()) for n in range(model.config.steps + 1)},
        "reconstruction_error": float(torch.cat(own).double().mean()),
        "reconstruction_error_by_step": torch.cat(by_step).double().mean(0).tolist(),
    }
    if complexity is None:
        return figures
    measures = {"length": complexity.length, "nodes": complexity.nodes}
    varies = len(np.unique(used)) > 1
    figures["rank_correlation"] = {
        name: float(spearmanr(used, values).statistic) if varies else None
        for name, values in measures.items()
    }
    figures["complexity_by_steps"] = {
        str(n): {name: float(values[used == n].mean()) for name, values in measures.items()}
        for n in np.unique(used)
    }
    return figures


def complexity_of(data: PictureData) -> Complexity:
    """The complexity of the drawings that a set of test images shows, in its order.

    Raises:
        DataError: Omniglot is not there, or has not so many drawings.
    """
    random = image_numbers(data, "test")
    return measure_complexity(choose(read_drawings("test"), data.images, random))


def table(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures as rows of name and value."""
    by_step = figures["reconstruction_error_by_step"]
    return [
        ("elbo", f"{figures['elbo']:.1f} nats"),
        ("steps_used", f"{figures['steps_used']:.2f}"),
        *((f"share with {n}", f"{share:.3f}") for n, share in figures["steps_shares"].items()),
        *(
            (f"rank_correlation with {name}", "undefined" if value is None else f"{value:.3f}")
            for name, value in figures["rank_correlation"].items()
        ),
        ("reconstruction_error", f"{figures['reconstruction_error']:.5f}"),
        *((f"reconstruction_error at {n}", f"{value:.5f}") for n, value in enumerate(by_step)),
        ("milliseconds_per_image", f"{figures['milliseconds_per_image']:.2f}"),
    ]

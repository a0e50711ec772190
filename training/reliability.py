"""Whether a model is as sure as it should be: coverage, ranks, contraction, calibration errors.

All of them look at the probability that the model gave to an error at most as large as the one that
it made. If the model means what it says, that probability is uniform from 0 to 1. The rank of the
truth among L posterior samples (simulation-based calibration, Talts et al. 2018) is drawn from it:
each of L independent samples lies below the truth with the probability that the model gives to it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kstest
from torch import Tensor

from inference.distributions import wrap
from inference.errors import LEVELS, ErrorLaw
from inference.estimate import Estimate
from renderer.scene import Scene
from renderer.spec import SceneSpec
from training.metrics import FOUND_WITHIN, match

SAMPLES = 63  # L; ranks are 0 to L
BINS, FOLDS = 16, 5  # of the classifier that tells ranks from uniform ones
HISTOGRAM = 16  # bins of ranks, for plots
ECE_BINS = 15

Floats = NDArray[np.float64]


class Found(NamedTuple):
    """Objects that were found as what they are, M of them over all scenes."""

    scene: Tensor  # [M] int64
    slot: Tensor  # [M] int64, of the estimate
    true_slot: Tensor  # [M] int64
    identity: Tensor  # [M] int64
    offset: Tensor  # [M, 2] m, of the estimate from the truth
    turned: Tensor  # [M] rad, modulo the symmetry, from -pi / order to pi / order; nan of order 0
    order: Tensor  # [M] int64


def found(spec: SceneSpec, estimate: Estimate, true: Scene) -> Found:
    """Matched objects of the right class within reach."""
    pairs = match(estimate.scene, true)
    guess = estimate.scene.identity[pairs.scene, pairs.inferred]
    truth = true.identity[pairs.scene, pairs.true]
    kept = (guess == truth) & (pairs.distance <= FOUND_WITHIN)
    b, i, j = pairs.scene[kept], pairs.inferred[kept], pairs.true[kept]
    order = torch.tensor(spec.symmetry_orders)[truth[kept]]
    turned = wrap(order * (estimate.scene.yaw[b, i] - true.yaw[b, j])) / order.clamp_min(1)
    return Found(
        b,
        i,
        j,
        truth[kept],
        estimate.scene.position[b, i] - true.position[b, j],
        torch.where(order == 0, math.nan, turned),
        order,
    )


def mahalanobis(estimate: Estimate, objects: Found) -> Tensor:
    """Distances of the truth, `[M]`, in units of the covariances."""
    covariance = estimate.position_covariance[objects.scene, objects.slot]
    solved = torch.linalg.solve(covariance.double(), objects.offset.double())
    return (objects.offset * solved).sum(-1).clamp_min(0.0).sqrt().float()


def probabilities(spec: SceneSpec, estimate: Estimate, true: Scene) -> dict[str, Tensor]:
    """What the model gave to errors at most as large as its own: uniform if it is calibrated.

    Of positions (ellipses of the covariance) and yaws (where they show, by their symmetry) of the
    objects that were found, and of azimuths (where the camera moves).
    """
    objects = found(spec, estimate, true)
    b, i = objects.scene, objects.slot
    position = ErrorLaw.of(estimate.position_law[b, i])
    shows = objects.order != 0
    yaw = ErrorLaw.of(estimate.yaw_law[b, i][shows])
    azimuth = wrap(estimate.scene.azimuth - true.azimuth).abs()
    kept = torch.full_like(azimuth, spec.camera.moves, dtype=torch.bool)
    return {
        "position": position.within_ellipse(mahalanobis(estimate, objects)),
        "yaw": yaw.within_turn(objects.turned[shows].abs(), objects.order[shows]),
        "azimuth": ErrorLaw.of(estimate.azimuth_law[kept]).within_turn(azimuth[kept]),
    }


def quantiles(spec: SceneSpec, estimate: Estimate, true: Scene) -> dict[str, Tensor]:
    """Where in the model's own distribution the truth lies, from 0 to 1, number by number.

    Of positions along x, and along what of y is not known when x is.
    """
    objects = found(spec, estimate, true)
    b, i = objects.scene, objects.slot
    shows = objects.order != 0
    both = probabilities(spec, estimate, true)
    covariance = estimate.position_covariance[b, i].double()
    # Cholesky's of the plane by hand: of M matrices of 2 x 2 nothing else is as fast.
    across = covariance[:, 0, 0].sqrt()
    slope = covariance[:, 0, 1] / across
    rest = (covariance[:, 1, 1] - slope.square()).clamp_min(1e-24).sqrt()
    x = objects.offset[:, 0].double() / across
    y = (objects.offset[:, 1] - slope * x) / rest
    law = ErrorLaw.of(estimate.position_law[b, i])
    azimuth = wrap(estimate.scene.azimuth - true.azimuth)[: len(both["azimuth"])]
    return {
        "x": law.within_line(-x.float()),
        "y": law.within_line(-y.float()),
        "yaw": 0.5 - 0.5 * objects.turned[shows].sign() * both["yaw"],
        "azimuth": 0.5 - 0.5 * azimuth.sign() * both["azimuth"],
    }


def coverage(
    spec: SceneSpec, estimate: Estimate, true: Scene
) -> dict[str, dict[str, float | None]]:
    """How often the truth lies within the central intervals that the model claims."""
    return {
        name: {str(level): _share(values <= level) for level in LEVELS}
        for name, values in probabilities(spec, estimate, true).items()
    }


def gaussian_coverage(
    spec: SceneSpec, estimate: Estimate, true: Scene
) -> dict[str, dict[str, float | None]]:
    """The same, of intervals that a user makes of `std` alone, as if errors were Gaussian."""
    plain = ErrorLaw.normal(torch.ones_like(estimate.yaw_std)).table()
    as_said = replace(
        estimate,
        position_law=plain,
        yaw_law=ErrorLaw.normal(estimate.yaw_std).table(),
        azimuth_law=ErrorLaw.normal(estimate.azimuth_std).table(),
    )
    return coverage(spec, as_said, true)


def rank_statistics(
    spec: SceneSpec, estimate: Estimate, true: Scene, *, generator: torch.Generator
) -> dict[str, dict[str, Any] | None]:
    """Of each number: how far the ranks of the truth among posterior samples are from uniform.

    `ks` is the largest distance between the distribution functions, an effect size, `ks_p` how
    often chance alone makes it as large; `c2st` how often a classifier tells a rank from a uniform
    one, 0.5 if it cannot (Lopez-Paz and Oquab 2017). Kolmogorov and Smirnov's test is made on what
    the ranks are drawn from, which has no ties.
    """
    result: dict[str, dict[str, Any] | None] = {}
    for name, values in quantiles(spec, estimate, true).items():
        if not len(values):
            result[name] = None
            continue
        ranks = draw_ranks(values, generator)
        test = kstest(values.double().numpy(), "uniform")
        counts = np.histogram(ranks, bins=HISTOGRAM, range=(0, SAMPLES + 1))[0]
        result[name] = {
            "n": len(values),
            "ks": float(test.statistic),
            "ks_p": float(test.pvalue),
            "c2st": c2st(ranks, generator),
            "histogram": counts.tolist(),
        }
    return result


def draw_ranks(below: Tensor, generator: torch.Generator) -> NDArray[np.int64]:
    """Ranks of truths among SAMPLES posterior samples, that lie `below` each with its share."""
    drawn = torch.rand(SAMPLES, len(below), generator=generator, dtype=torch.float64)
    ranks: NDArray[np.int64] = (drawn < below.double()).sum(0).numpy()
    return ranks


def c2st(ranks: NDArray[np.int64], generator: torch.Generator) -> float:
    """Accuracy, on ranks that it did not learn from, of telling ranks from uniform ones.

    The classifier is a histogram: it has seen which of both lies more often in a bin.
    """
    uniform = torch.randint(SAMPLES + 1, (len(ranks),), generator=generator).numpy()
    values = np.concatenate([ranks, uniform]) * BINS // (SAMPLES + 1)
    label = np.repeat([1, 0], len(ranks))
    fold = torch.randperm(len(values), generator=generator).numpy() % FOLDS
    right = 0.0
    for k in range(FOLDS):
        seen, held = fold != k, fold == k
        lead = np.bincount(values[seen], weights=2 * label[seen] - 1, minlength=BINS)
        says = np.sign(lead)[values[held]]
        right += float((says == 2 * label[held] - 1).sum() + 0.5 * (says == 0).sum())
    return right / len(values)


def contraction(spec: SceneSpec, estimate: Estimate, true: Scene) -> dict[str, float | None]:
    """1 - posterior variance / prior variance, so that being vague cannot pass for being honest.

    Of objects that were found, the mean; variances are the squares of what is given as `std`.
    """
    objects = found(spec, estimate, true)
    b, i = objects.scene, objects.slot
    x, y = spec.placement.extent
    plane = estimate.position_covariance[b, i].diagonal(dim1=1, dim2=2).sum(1)
    half = math.pi / objects.order.clamp_min(1)
    yaw = estimate.yaw_std[b, i].square() / (half.square() / 3)
    least, greatest = spec.camera.azimuth_range
    azimuth = estimate.azimuth_std.square() / max((greatest - least) ** 2 / 12, 1e-12)
    return {
        "position": _contraction(plane / ((x * x + y * y) / 3)),
        "yaw": _contraction(yaw[objects.order != 0].clamp_max(1.0)),
        "azimuth": _contraction(azimuth) if spec.camera.moves else None,
    }


def identity_calibration(spec: SceneSpec, estimate: Estimate, true: Scene) -> tuple[Tensor, Tensor]:
    """Class probabilities `[M, C]` and true classes `[M]` of inferred objects near a true one."""
    pairs = match(estimate.scene, true)
    near = pairs.distance <= FOUND_WITHIN
    b, i, j = pairs.scene[near], pairs.inferred[near], pairs.true[near]
    return estimate.class_probabilities[b, i], true.identity[b, j]


def expected_calibration_error(
    probabilities: Tensor, truth: Tensor, *, bins: int = ECE_BINS
) -> float | None:
    """Mean distance between confidence and accuracy over equal bins of confidence.

    Args:
        probabilities: `[B, N]`.
        truth: `[B]` int64.
        bins: how many.
    """
    if not len(truth):
        return None
    confidence, guess = probabilities.max(dim=1)
    right = (guess == truth).float()
    index = (confidence * bins).long().clamp(0, bins - 1)
    error = 0.0
    for b in range(bins):
        inside = index == b
        if bool(inside.any()):
            gap = float((right[inside].mean() - confidence[inside].mean()).abs())
            error += gap * float(inside.float().mean())
    return error


def _contraction(ratio: Tensor) -> float | None:
    return float(1 - ratio.mean()) if len(ratio) else None


def _share(inside: Tensor) -> float | None:
    return float(inside.float().mean()) if len(inside) else None

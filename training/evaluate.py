"""Measures a checkpoint on fresh scenes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.stats import chi2, norm
from torch import Tensor

from inference.checkpoint import Checkpoint
from inference.distributions import wrap
from inference.estimate import Estimate
from inference.network import InferenceNetwork
from inference.refine import Refinement
from inference.refine import refine as render_and_compare
from renderer.backend import Renderer, open_renderer
from renderer.jacobian import Drawing
from renderer.nuisance import photograph
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec
from training.dreams import generator_for
from training.metrics import FOUND_WITHIN, accuracy, match, summary, yaw_errors

LEVELS = (0.5, 0.8, 0.9, 0.95)
BATCH = 64
QUALITY_SCENES = 512


@dataclass(frozen=True)
class Inferred:
    """What a model said of a set of scenes, with the pictures that it saw."""

    true: Scene
    estimate: Estimate
    reconstruction_mse: Tensor  # [B], of pixels in [0, 1]
    milliseconds_per_image: float  # of the network alone, in batches
    refined: Inferred | None = None  # by render and compare, image by image
    refine_milliseconds: Tensor | None = None  # [B, 2] by the clock, and of all processors


def evaluate(
    checkpoint: Checkpoint,
    *,
    scenes: int,
    seed: int,
    backend: str = "auto",
    nuisance: bool = False,
    world: SceneSpec | None = None,
    refine: int = 0,
) -> dict[str, Any]:
    """Draws scenes that training never saw, infers them, and says how well.

    Args:
        checkpoint: the model.
        scenes: how many.
        seed: of the scenes; none of them occurs in training, whatever its seed.
        backend: that draws the pictures.
        nuisance: whether all of the spec's nuisance is in the pictures.
        world: where the scenes are, if not where the checkpoint was trained: the same objects
            under another light, or in other colours.
        refine: steps of render and compare, the figures afterwards under `refined`; 0 for none.

    Returns:
        The figures as plain data, with the keys that the design names.

    Raises:
        ValueError: no scenes, or a world with other objects or another camera.
    """
    if refine < 0:
        raise ValueError("--refine must not be below 0")
    if scenes < 1:
        raise ValueError("--scenes must be at least 1")
    if world is not None:
        _check_world(checkpoint.spec, world)
    supersample = int(checkpoint.config.training.get("experiment", {}).get("supersample", 2))
    inferred, name = run(
        checkpoint.posterior,
        world=world,
        scenes=scenes,
        generator=generator_for("evaluate", seed),
        backend=backend,
        supersample=supersample,
        nuisance=nuisance,
        refine=refine,
    )
    result: dict[str, Any] = {
        "checkpoint": checkpoint.name,
        "sha256": checkpoint.sha256,
        "scenes": scenes,
        "seed": seed,
        "backend": name,
        "nuisance": nuisance,
        "world": None if world is None else world.name,
        **_figures(checkpoint, inferred),
        "milliseconds_per_image": inferred.milliseconds_per_image,
    }
    if inferred.refined is not None and inferred.refine_milliseconds is not None:
        result["refined"] = {
            "steps": refine,
            **_figures(checkpoint, inferred.refined),
            "milliseconds_per_image": summary(inferred.refine_milliseconds[:, 0]),
            # What it would take with one core to itself, on a machine that does other work beside.
            "processor_milliseconds_per_image": summary(inferred.refine_milliseconds[:, 1]),
        }
    return result


def _figures(checkpoint: Checkpoint, inferred: Inferred) -> dict[str, Any]:
    return {
        **accuracy(checkpoint.spec, inferred.estimate.scene, inferred.true),
        "reconstruction_mse": float(inferred.reconstruction_mse.mean()),
        "coverage": coverage(checkpoint, inferred),
        "count_ece": expected_calibration_error(
            inferred.estimate.count_probabilities, inferred.true.count
        ),
    }


def run(
    posterior: InferenceNetwork[Any],
    *,
    scenes: int,
    generator: torch.Generator,
    backend: str,
    supersample: int,
    nuisance: bool,
    world: SceneSpec | None = None,
    refine: int = 0,
) -> tuple[Inferred, str]:
    """Draws and infers; returns what was inferred and the name of the backend that drew."""
    renderer = _open(posterior, backend, supersample)
    spec, outside = posterior.spec, renderer
    if world is not None:
        spec, outside = world, _open(posterior, renderer.name, supersample, world)
    parts: list[Inferred] = []
    for start in range(0, scenes, BATCH):
        true = sample(spec, min(BATCH, scenes - start), generator=generator)
        if nuisance:
            pictures = photograph(outside, true, generator=generator)
        else:
            pictures = outside.render_bytes(true)
        image = pictures.permute(0, 3, 1, 2).float().div(255.0)
        part = _infer(posterior, renderer, image, true)
        parts.append(_refine(part, renderer, image, refine) if refine else part)
    return _join(parts), renderer.name


def _check_world(own: SceneSpec, world: SceneSpec) -> None:
    def shared(spec: SceneSpec) -> dict[str, object]:
        return {
            "camera": spec.camera,
            "objects": list(zip(spec.class_names, spec.symmetry_orders, strict=True)),
            "greatest count": spec.count.max,
        }

    mine, theirs = shared(own), shared(world)
    differing = [name for name in mine if mine[name] != theirs[name]]
    if differing:
        raise ValueError(
            f"--world {world.name}: has another {' and '.join(differing)} than the checkpoint's "
            f"{own.name}; only light, colours and nuisance may differ"
        )


def _open(
    posterior: InferenceNetwork[Any],
    backend: str,
    supersample: int,
    world: SceneSpec | None = None,
) -> Renderer:
    return open_renderer(
        world or posterior.spec,
        height=posterior.config.height,
        width=posterior.config.width,
        backend=backend,
        supersample=supersample,
    )


def _infer(
    posterior: InferenceNetwork[Any], renderer: Renderer, image: Tensor, true: Scene
) -> Inferred:
    start = time.perf_counter()
    estimate = posterior.infer(image.to(next(posterior.parameters()).device)).to("cpu")
    spent = 1000 * (time.perf_counter() - start) / len(true)
    error = (renderer.render(estimate.scene) - image).square().mean(dim=(1, 2, 3))
    return Inferred(true, estimate, error, spent)


def _refine(inferred: Inferred, renderer: Renderer, image: Tensor, steps: int) -> Inferred:
    """The same with what render and compare makes of it."""
    drawing, options = Drawing(renderer), Refinement(steps=steps)
    found, milliseconds = [], []
    for b in range(len(image)):
        began = time.perf_counter(), time.process_time()
        found.append(
            render_and_compare(
                renderer.spec, inferred.estimate[b], image[b : b + 1], drawing, options
            )
        )
        ended = time.perf_counter(), time.process_time()
        milliseconds.append([1000 * (end - start) for start, end in zip(began, ended, strict=True)])
    refined = replace(
        inferred,
        estimate=Estimate.cat([one.estimate for one in found]),
        reconstruction_mse=torch.cat([one.error for one in found]),
    )
    return replace(inferred, refined=refined, refine_milliseconds=torch.tensor(milliseconds))


def _join(parts: list[Inferred]) -> Inferred:
    refined = [part.refined for part in parts if part.refined is not None]
    spent = [part.refine_milliseconds for part in parts if part.refine_milliseconds is not None]
    times = sorted(part.milliseconds_per_image for part in parts)
    return Inferred(
        Scene.cat([part.true for part in parts]),
        Estimate.cat([part.estimate for part in parts]),
        torch.cat([part.reconstruction_mse for part in parts]),
        times[len(times) // 2],
        _join(refined) if refined else None,
        torch.cat(spent) if spent else None,
    )


def coverage(checkpoint: Checkpoint, inferred: Inferred) -> dict[str, dict[str, float | None]]:
    """How often the truth lies within the central intervals that the model claims.

    Over matched objects of the right class. Positions: ellipses of the covariance. Yaw (where it
    shows) and azimuth: plus or minus the normal quantile times the standard deviation.
    """
    spec, estimate, true = checkpoint.spec, inferred.estimate, inferred.true
    pairs = match(estimate.scene, true)
    guess = estimate.scene.identity[pairs.scene, pairs.inferred]
    truth = true.identity[pairs.scene, pairs.true]
    kept = (guess == truth) & (pairs.distance <= FOUND_WITHIN)
    b, i, j = pairs.scene[kept], pairs.inferred[kept], pairs.true[kept]
    offset = estimate.scene.position[b, i] - true.position[b, j]
    solved = torch.linalg.solve(estimate.position_covariance[b, i], offset)
    distance = (offset * solved).sum(-1)
    yaw = yaw_errors(spec, truth[kept], estimate.scene.yaw[b, i], true.yaw[b, j])
    shows = ~yaw.isnan()
    yaw_sigmas = yaw[shows] / estimate.yaw_std[b, i][shows]
    azimuth = wrap(estimate.scene.azimuth - true.azimuth).abs()
    azimuth_sigmas = azimuth / estimate.azimuth_std if spec.camera.moves else azimuth[:0]
    return {
        "position": {str(p): _share(distance <= float(chi2.ppf(p, 2))) for p in LEVELS},
        "yaw": {str(p): _share(yaw_sigmas <= float(norm.ppf(0.5 + p / 2))) for p in LEVELS},
        "azimuth": {str(p): _share(azimuth_sigmas <= float(norm.ppf(0.5 + p / 2))) for p in LEVELS},
    }


def quality_limits(
    posterior: InferenceNetwork[Any],
    *,
    generator: torch.Generator,
    backend: str,
    supersample: int,
    photos: Tensor | None = None,
) -> dict[str, float]:
    """From which reconstruction error on a picture is unlike those that the model knows.

    A margin of a half above all but one in a hundred of held-out pictures, spoiled as in training;
    or of held-out `photos` (`[M, 3, H, W]` uint8) of its own table, if the renderer draws those
    less well.
    """
    inferred, _ = run(
        posterior,
        scenes=QUALITY_SCENES,
        generator=generator,
        backend=backend,
        supersample=supersample,
        nuisance=True,
    )
    greatest = float(inferred.reconstruction_mse.quantile(0.99))
    if photos is not None:
        renderer = _open(posterior, backend, supersample)
        found = [
            _infer(posterior, renderer, some.float().div(255.0), Scene.empty(len(some), 1))
            for some in photos.split(BATCH)  # what they show nobody knows, and is not looked at
        ]
        greatest = max(greatest, float(_join(found).reconstruction_mse.quantile(0.99)))
    return {"reconstruction_error": 1.5 * greatest}


def expected_calibration_error(probabilities: Tensor, truth: Tensor, *, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over equal bins of confidence.

    Args:
        probabilities: `[B, N]`.
        truth: `[B]` int64.
        bins: how many.
    """
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


def _share(inside: Tensor) -> float | None:
    return float(inside.float().mean()) if len(inside) else None


def table(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures as rows of name and value, in units that people read."""
    rows = _rows(figures)
    rows.append(("network alone", f"{figures['milliseconds_per_image']:.2f} ms an image"))
    if "refined" in figures:
        refined = figures["refined"]
        rows += [(f"refined: {name}", value) for name, value in _rows(refined)]
        for name in ("milliseconds", "processor_milliseconds"):
            spent = refined[f"{name}_per_image"].items()
            shown = ", ".join(f"{key} {value:.0f}" for key, value in spent)
            rows.append((f"refined: {name.replace('_', ' ')}", f"{shown} an image"))
    return rows


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (name, f"{figures[name]:.4f}" if figures[name] is not None else "none")
        for name in ("count_accuracy", "identity_accuracy", "recall", "precision", "count_ece")
    ]
    units = (
        ("position_error_m", 1000.0, "mm"),
        ("yaw_error_rad", math.degrees(1), "deg"),
        ("azimuth_error_rad", math.degrees(1), "deg"),
    )
    for name, factor, unit in units:
        for key, value in figures[name].items():
            shown = "none" if value is None else f"{value * factor:.3f} {unit}"
            rows.append((f"{name.rsplit('_', 1)[0]} {key}", shown))
    for name, levels in figures["coverage"].items():
        shown = "  ".join(
            f"{level}: {'none' if value is None else format(value, '.3f')}"
            for level, value in levels.items()
        )
        rows.append((f"coverage of {name}", shown))
    for name, entry in figures["classes"].items():
        values = [f"recall {entry['recall']:.4f}" if entry["recall"] is not None else "absent"]
        for key, factor, unit in units[:2]:
            median = entry[key]["median"]
            if median is not None:
                values.append(f"{key.split('_')[0]} {median * factor:.2f} {unit}")
        rows.append((f"class {name}", "  ".join(values)))
    rows.append(("reconstruction_mse", f"{figures['reconstruction_mse']:.6f}"))
    return rows

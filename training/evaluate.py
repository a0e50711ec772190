"""Measures a checkpoint on fresh scenes."""

from __future__ import annotations

import math
from typing import Any

from inference.checkpoint import Checkpoint
from inference.novelty import doubt_of
from renderer.spec import SceneSpec
from training.dreams import generator_for
from training.inferred import Inferred, run
from training.metrics import accuracy, summary
from training.reliability import (
    contraction,
    coverage,
    expected_calibration_error,
    gaussian_coverage,
    identity_calibration,
    rank_statistics,
)

SHARES = ("count_accuracy", "identity_accuracy", "recall", "precision")


def evaluate(
    checkpoint: Checkpoint,
    *,
    scenes: int,
    seed: int,
    backend: str = "auto",
    nuisance: bool = False,
    jpeg: bool = False,
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
        jpeg: whether they are written as JPEG besides.
        world: where the scenes are, if not where the checkpoint was trained: the same objects
            under another light, or in other colours.
        refine: steps of render and compare, the figures afterwards under `refined`; 0 for none.

    Returns:
        The figures as plain data, with the keys that the design names.

    Raises:
        ValueError: no scenes, JPEG without nuisance, or a world with other objects or another
            camera.
    """
    if jpeg and not nuisance:
        raise ValueError("--jpeg is of photos: give --nuisance with it")
    if refine < 0:
        raise ValueError("--refine must not be below 0")
    if scenes < 1:
        raise ValueError("--scenes must be at least 1")
    if world is not None:
        _check_world(checkpoint.spec, world)
    inferred, name = run(
        checkpoint.posterior,
        calibration=checkpoint.config.calibration,
        world=world,
        scenes=scenes,
        generator=generator_for("evaluate", seed),
        backend=backend,
        supersample=checkpoint.supersample,
        nuisance=nuisance,
        jpeg=jpeg,
        refine=refine,
    )
    return report(
        checkpoint,
        inferred,
        seed=seed,
        backend=name,
        nuisance=nuisance,
        jpeg=jpeg,
        world=None if world is None else world.name,
        refine=refine,
    )


def report(
    checkpoint: Checkpoint,
    inferred: Inferred,
    *,
    seed: int,
    backend: str,
    nuisance: bool = False,
    jpeg: bool = False,
    world: str | None = None,
    refine: int = 0,
) -> dict[str, Any]:
    """What `evaluate` returns, of what was inferred; the arguments as there, but names."""
    result: dict[str, Any] = {
        "checkpoint": checkpoint.name,
        "sha256": checkpoint.sha256,
        "scenes": len(inferred.true),
        "seed": seed,
        "backend": backend,
        "nuisance": nuisance,
        "jpeg": jpeg,
        "world": world,
        "calibrated": checkpoint.config.calibration is not None,
        **figures_of(checkpoint, inferred, seed),
        "milliseconds_per_image": inferred.milliseconds_per_image,
    }
    if inferred.refined is not None and inferred.refine_milliseconds is not None:
        result["refined"] = {
            "steps": refine,
            **figures_of(checkpoint, inferred.refined, seed),
            "milliseconds_per_image": summary(inferred.refine_milliseconds[:, 0]),
            # What it would take with one core to itself, on a machine that does other work beside.
            "processor_milliseconds_per_image": summary(inferred.refine_milliseconds[:, 1]),
        }
    return result


def figures_of(checkpoint: Checkpoint, inferred: Inferred, seed: int) -> dict[str, Any]:
    """What was inferred, measured by the truth.

    Args:
        checkpoint: the model.
        inferred: by it.
        seed: of the ranks, which are drawn.
    """
    spec, estimate, true = checkpoint.spec, inferred.estimate, inferred.true
    return {
        **accuracy(spec, estimate.scene, true),
        "reconstruction_mse": float(inferred.reconstruction_mse.mean()),
        "coverage": coverage(spec, estimate, true),
        "coverage_by_std": gaussian_coverage(spec, estimate, true),
        "count_ece": expected_calibration_error(estimate.count_probabilities, true.count),
        "identity_ece": expected_calibration_error(*identity_calibration(spec, estimate, true)),
        "ranks": rank_statistics(spec, estimate, true, generator=generator_for("ranks", seed)),
        "contraction": contraction(spec, estimate, true),
        "in_distribution": _share_known(checkpoint, inferred),
    }


def _share_known(checkpoint: Checkpoint, inferred: Inferred) -> float | None:
    """Share of pictures of which the model says that it knows what they show."""
    limits = checkpoint.config.novelty
    if limits is None:
        return None
    novelty = limits.novelty(inferred.block, doubt_of(inferred.estimate))
    return float((novelty <= 1.0).float().mean())


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
        for name in (*SHARES, "count_ece", "identity_ece", "in_distribution")
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
    for name, test in figures["ranks"].items():
        if test is not None:
            shown = f"KS {test['ks']:.3f} (p {test['ks_p']:.2g})  c2st {test['c2st']:.3f}"
            rows.append((f"ranks of {name}", shown))
    for name, value in figures["contraction"].items():
        if value is not None:
            rows.append((f"contraction of {name}", f"{value:.5f}"))
    for name, entry in figures["classes"].items():
        values = [f"recall {entry['recall']:.4f}" if entry["recall"] is not None else "absent"]
        for key, factor, unit in units[:2]:
            median = entry[key]["median"]
            if median is not None:
                values.append(f"{key.split('_')[0]} {median * factor:.2f} {unit}")
        rows.append((f"class {name}", "  ".join(values)))
    rows.append(("reconstruction_mse", f"{figures['reconstruction_mse']:.6f}"))
    return rows

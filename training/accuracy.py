"""Measuring a model in every way: its own world, others, worlds that it does not know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from inference.checkpoint import Checkpoint
from training.dreams import generator_for
from training.evaluate import report
from training.inferred import Inferred, open_like, run
from training.mistakes import Case, worst_cases
from training.novelty import Scores, novelty_figures, score_worlds
from training.occlusion import distances, visible_shares


@dataclass(frozen=True)
class Elsewhere:
    """What was inferred of pictures that are not as the model's own."""

    name: str  # what is different
    options: str  # of the command
    inferred: Inferred


@dataclass(frozen=True)
class Measured:
    """All that the page is made of."""

    own: Inferred  # with what refinement made of it
    elsewhere: list[Elsewhere]
    scores: dict[str, Scores]
    shares: Tensor  # [B, K] which part of each true object of `own` is seen
    distances: Tensor  # [B, K] m, from the camera
    cases: list[Case]
    backend: str
    scenes: int
    seed: int
    steps: int  # of refinement


def measure(
    checkpoint: Checkpoint,
    *,
    scenes: int,
    seed: int,
    refine: int,
    novel: int,
    backend: str = "auto",
    meshes: Path | None = None,
) -> Measured:
    """Draws and infers all that the page tells of.

    Args:
        checkpoint: the model.
        scenes: of its own world, and of each other.
        seed: of the scenes; those of `evaluate` with this seed.
        refine: steps of render and compare.
        novel: pictures of each foreign kind.
        backend: that draws its own world.
        meshes: folder with meshes of foreign objects.
    """

    def inferred(backend: str, **options: Any) -> tuple[Inferred, str]:
        return run(
            checkpoint.posterior,
            scenes=scenes,
            generator=generator_for("evaluate", seed),  # the same scenes each time
            backend=backend,
            supersample=checkpoint.supersample,
            calibration=checkpoint.config.calibration,
            **options,
        )

    own, name = inferred(backend, nuisance=False, refine=refine, keep=True)
    renderer = open_like(checkpoint.posterior, name, checkpoint.supersample)
    shares = visible_shares(renderer, own.true)
    cases = worst_cases(checkpoint.spec, own, shares, renderer)
    far = distances(checkpoint.spec, own.true)
    renderer.close()
    other = "raycast" if name == "opengl" else "opengl"
    elsewhere = []
    for title, options, backend_name, nuisance, jpeg in (
        ("sensor noise, blur, exposure", "--nuisance", name, True, False),
        ("the other backend", f"--backend {other}", other, False, False),
        (
            "the other backend, noise, blur, JPEG",
            f"--backend {other} --nuisance --jpeg",
            other,
            True,
            True,
        ),
    ):
        found, _ = inferred(backend_name, nuisance=nuisance, jpeg=jpeg)
        elsewhere.append(Elsewhere(title, options, found))
    scores = score_worlds(checkpoint, pictures=novel, seed=seed, backend=name, meshes=meshes)
    return Measured(own, elsewhere, scores, shares, far, cases, name, scenes, seed, refine)


def evaluation(checkpoint: Checkpoint, measured: Measured) -> dict[str, Any]:
    """What `evaluate` says of the model's own world, and what it tells from the others."""
    own = report(
        checkpoint,
        measured.own,
        seed=measured.seed,
        backend=measured.backend,
        refine=measured.steps,
    )
    return {**own, "novelty": novelty_figures(measured.scores)}

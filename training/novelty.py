"""How well a model tells what it knows from what it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor

from inference.checkpoint import Checkpoint
from inference.novelty import doubt_of
from renderer.scene import Scene
from training.dreams import generator_for
from training.foreign import ForeignWorlds
from training.inferred import BATCH, Inferred, draw, infer, join, open_like

KNOWN = "known"
EXAMPLES = 8  # pictures of each kind that are kept


@dataclass(frozen=True)
class Scores:
    """What a model says of how well it knows M pictures."""

    novelty: Tensor  # [M]
    unexplained: Tensor  # [M]
    examples: Tensor  # [EXAMPLES, H, W, 3] uint8, the first ones


def novelty_of(checkpoint: Checkpoint, inferred: Inferred) -> Tensor:
    """Of pictures whose scenes were inferred, `[B]`.

    Raises:
        ValueError: the checkpoint has no limits.
    """
    limits = checkpoint.config.novelty
    if limits is None:
        raise ValueError(
            f"{checkpoint.folder}: does not say from where on a picture is novel; "
            "run `python -m training calibrate` on it first"
        )
    return limits.novelty(inferred.block, doubt_of(inferred.estimate))


def score_worlds(
    checkpoint: Checkpoint,
    *,
    pictures: int,
    seed: int,
    backend: str = "auto",
    meshes: Path | None = None,
) -> dict[str, Scores]:
    """Scores of known pictures, half of them with all of the nuisance, and of each foreign kind.

    Args:
        checkpoint: the model.
        pictures: of each kind.
        seed: of all of them.
        backend: that draws them.
        meshes: folder with meshes of foreign objects; see `ForeignWorlds`.
    """
    if pictures < 2:
        raise ValueError("give at least 2 pictures of each kind")
    network = checkpoint.posterior.config
    own = open_like(checkpoint.posterior, backend, checkpoint.supersample)
    generator = generator_for("known", seed)
    known: list[Tensor] = []
    for nuisance in (False, True):
        size = (pictures + nuisance) // 2
        known += [some for _, some in draw(own, size, generator=generator, nuisance=nuisance)]
    scores = {KNOWN: _score(checkpoint, torch.cat(known), own)}
    worlds = ForeignWorlds(
        checkpoint.spec,
        height=network.height,
        width=network.width,
        backend=own.name,
        supersample=checkpoint.supersample,
        meshes=meshes,
    )
    for kind, drawn in worlds.kinds.items():
        foreign = drawn(pictures, generator_for("foreign", kind, seed))
        scores[kind] = _score(checkpoint, foreign, own)
    worlds.close()
    own.close()
    return scores


def roc_area(known: Tensor, foreign: Tensor) -> float:
    """Probability that a foreign picture scores higher than a known one; ties count half."""
    ranks = rankdata(torch.cat([foreign, known]).double().numpy())[: len(foreign)]
    n, m = len(foreign), len(known)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def novelty_figures(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """For each kind the areas under ROC, and how many pictures are told to be novel."""
    known = scores[KNOWN]
    return {
        kind: {
            "pictures": len(found.novelty),
            "told_novel": float((found.novelty > 1.0).float().mean()),
            **(
                {}
                if kind == KNOWN
                else {
                    "roc_area": roc_area(known.novelty, found.novelty),
                    "roc_area_explained": roc_area(known.unexplained, found.unexplained),
                }
            ),
        }
        for kind, found in scores.items()
    }


def _score(checkpoint: Checkpoint, pictures: Tensor, renderer: Any) -> Scores:
    inferred = join(
        [
            infer(
                checkpoint.posterior,
                renderer,
                some,
                Scene.empty(len(some), 1),  # what foreign pictures show is no scene
                checkpoint.config.calibration,
            )
            for some in pictures.split(BATCH)
        ]
    )
    return Scores(
        novelty_of(checkpoint, inferred), 1.0 - inferred.explained, pictures[:EXAMPLES].clone()
    )

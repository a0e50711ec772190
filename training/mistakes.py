"""The worst answers of a model, and what is wrong with them in words."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from renderer.backend import Renderer
from renderer.scene import Scene
from renderer.spec import SceneSpec
from training.inferred import Inferred
from training.metrics import FOUND_WITHIN, match, yaw_errors

WORST = 20
OFF = 0.01  # m, from which on a place is called wrong
TURNED = math.radians(10)  # from which on a yaw is
HIDDEN = 0.7  # share of an object's pixels that is seen, below which that is said


class Case(NamedTuple):
    """One bad answer."""

    scene: int
    pictures: Tensor  # [3, H, W, 3] uint8: seen, inferred, refined (or inferred again)
    says: str


class Mistake(NamedTuple):
    """What is wrong with one object."""

    badness: float  # 1 for one that is missed, invented or of another class
    says: str


def worst_cases(
    spec: SceneSpec, inferred: Inferred, shares: Tensor, renderer: Renderer, number: int = WORST
) -> list[Case]:
    """The answers of the single pass with the most and the largest mistakes.

    Args:
        spec: the world.
        inferred: what was inferred, with its pictures, and refined if it was.
        shares: `[B, K]` of each true object, which part is seen.
        renderer: draws scenes.
        number: how many.

    Raises:
        ValueError: the pictures were not kept.
    """
    if inferred.pictures is None:
        raise ValueError("the pictures were not kept; give keep=True to run")
    mistakes = mistakes_of(spec, inferred.estimate.scene, inferred.true, shares)
    after = inferred.refined or inferred
    left = mistakes_of(spec, after.estimate.scene, inferred.true, shares)
    badness = torch.tensor([sum(one.badness for one in some) for some in mistakes])
    chosen = badness.argsort(descending=True, stable=True)[:number]
    chosen = chosen[badness[chosen] > 0]
    first = renderer.render_bytes(inferred.estimate.scene[chosen])
    second = renderer.render_bytes(after.estimate.scene[chosen])
    cases = []
    for row, b in enumerate(chosen.tolist()):
        pictures = torch.stack([inferred.pictures[b], first[row], second[row]])
        says = "; ".join(one.says for one in mistakes[b])
        if inferred.refined is not None:
            says += "\n" + (
                "refined: " + "; ".join(one.says for one in left[b])
                if left[b]
                else "refined: right"
            )
        cases.append(Case(b, pictures, says))
    return cases


def mistakes_of(spec: SceneSpec, guess: Scene, true: Scene, shares: Tensor) -> list[list[Mistake]]:
    """What is wrong with each scene, the worst first.

    Args:
        spec: the world.
        guess: B scenes.
        true: what they should be.
        shares: `[B, K]` of each true object, which part is seen.
    """
    pairs = match(guess, true)
    wrong: list[list[Mistake]] = [[] for _ in range(len(true))]
    missed, invented = true.presence.clone(), guess.presence.clone()
    names = spec.class_names
    yaw = yaw_errors(
        spec,
        true.identity[pairs.scene, pairs.true],
        guess.yaw[pairs.scene, pairs.inferred],
        true.yaw[pairs.scene, pairs.true],
    )
    columns = (pairs.scene, pairs.inferred, pairs.true, pairs.distance, yaw)
    for b, i, j, distance, turned in zip(*(c.tolist() for c in columns), strict=True):
        if distance > FOUND_WITHIN:
            continue
        missed[b, j] = invented[b, i] = False
        name, taken = names[int(true.identity[b, j])], names[int(guess.identity[b, i])]
        hidden = _hidden(float(shares[b, j]))
        if name != taken:
            wrong[b].append(Mistake(1.0, f"{name}{hidden} taken for a {taken}"))
            continue
        if distance > OFF:
            says = f"{name}{hidden} {1000 * distance:.0f} mm off"
            wrong[b].append(Mistake(distance / FOUND_WITHIN, says))
        if turned > TURNED:  # not where no turn shows: that is nan
            says = f"{name}{hidden} turned by {math.degrees(turned):.0f}°"
            wrong[b].append(Mistake(0.5 * turned / math.pi, says))
    for b, j in missed.nonzero().tolist():
        name = names[int(true.identity[b, j])]
        wrong[b].append(Mistake(1.0, f"{name}{_hidden(float(shares[b, j]))} missed"))
    for b, i in invented.nonzero().tolist():
        wrong[b].append(Mistake(1.0, f"{names[int(guess.identity[b, i])]} invented"))
    return [sorted(some, key=lambda one: -one.badness) for some in wrong]


def _hidden(share: float) -> str:
    return f" ({share:.0%} seen)" if share < HIDDEN else ""

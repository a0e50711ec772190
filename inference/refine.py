"""Render and compare: from the network's answer to the scene that explains the image best.

First the poses and the camera, by damped Gauss-Newton. Where the image stays unexplained after
that, the other things that it could show: an object turned, of another class, absent, two read as
one, one more. What is tried competes by its error on the image; nothing is accepted that does not
lessen it, so that a scene never ends with a worse picture than it started with.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from inference.belief import Belief
from inference.estimate import Estimate
from inference.gauss_newton import Drawing, Fit, begin, covariance, squared_error, step
from inference.hypotheses import alternatives, doubts, promising, stand_apart
from inference.watch import Watch
from renderer.scene import Scene
from renderer.spec import SceneSpec

TOGETHER = 16  # images whose slopes are in memory at once
# What pieces of work take at first, until they have been measured: a step so many pictures, a round
# of hypotheses so many steps.
STEP, ROUND = 12, 15
CONVERGED = 1e-3  # a step that lessens the error by a smaller share is the last
EXPOSURES = (0.8, 1.25)  # how much brighter an image may be than its picture

REACH = 1.5  # px, blur by which they are compared and first follow their slopes
COARSE, FINE = 2, 2  # steps of theirs, with that blur and without
# One more object has to explain that much more: it always explains a little.
EVIDENCE = 20.0  # nats
LEAST_STD = 0.01  # of a pixel: how well a picture can be expected to match at all


@dataclass(frozen=True)
class Refinement:
    """How hard to try."""

    steps: int = 5  # of Gauss-Newton, at most
    rounds: int = 4  # of hypotheses, at most; 0 keeps number and classes as they are
    seconds: float = math.inf  # for all images together, covariances included

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rounds < 0 or not self.seconds > 0:
            raise ValueError(
                f"Refinement(steps={self.steps}, rounds={self.rounds}, seconds={self.seconds}): "
                "give at least 1 step, no fewer than 0 rounds, and more than 0 seconds"
            )


class Refined(NamedTuple):
    """What refinement made of estimates."""

    estimate: Estimate  # spreads are the likelihood's curvature where `curved`
    error_before: Tensor  # [B] mean squared, of pixels in [0, 1]
    error: Tensor  # [B]
    curved: Tensor  # [B] bool; where time ran out, spreads are the network's
    before: Estimate  # the same scenes, with what the network says of their spreads

    @staticmethod
    def cat(parts: Sequence[Refined]) -> Refined:
        """One from several."""
        return Refined(
            Estimate.cat([part.estimate for part in parts]),
            torch.cat([part.error_before for part in parts]),
            torch.cat([part.error for part in parts]),
            torch.cat([part.curved for part in parts]),
            Estimate.cat([part.before for part in parts]),
        )


def refine(
    spec: SceneSpec,
    estimate: Estimate,
    image: Tensor,
    drawing: Drawing,
    options: Refinement | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Refined:
    """Makes the scenes of estimates explain their images better.

    Args:
        spec: the world.
        estimate: of B images, by a network.
        image: `[B, 3, H, W]` in [0, 1], of the drawing's size.
        drawing: draws scenes, on the images' device.
        options: how hard to try.
        clock: seconds; what the time limit is read from. It is kept to within one piece of work:
            a step of a few images, or a round of hypotheses for one.
    """
    options = options or Refinement()
    with torch.no_grad():
        return _Refining(spec, estimate, image, drawing, options, clock).run()


class _Refining:
    """One call of `refine`."""

    def __init__(
        self,
        spec: SceneSpec,
        estimate: Estimate,
        image: Tensor,
        drawing: Drawing,
        options: Refinement,
        clock: Callable[[], float],
    ) -> None:
        self.spec, self.drawing, self.options = spec, drawing, options
        self.watch = Watch(options.seconds, clock)
        self.estimate, self.image = estimate, image
        self.belief = Belief(estimate, spec.symmetry_orders, moves=spec.camera.moves)
        self.curved = torch.zeros(len(image), dtype=torch.bool, device=image.device)

    def run(self) -> Refined:
        """See `refine`."""
        if not len(self.image):
            nothing = self.image.new_zeros(0)
            return Refined(self.estimate, nothing, nothing, self.curved, self.estimate)
        with self.watch.spending("picture", len(self.image)):
            self.fit = begin(self.drawing, _copy(self.estimate.scene), self.image)
        self.watch.expect("step", STEP * self.watch.cost("picture"))
        start = _copy(self.fit.scene), self.fit.picture.clone()
        # An image that is a little brighter all over is no reason to move anything.
        drawn = start[1].square().sum((1, 2, 3)).clamp_min(1e-6)
        level = ((self.image * start[1]).sum((1, 2, 3)) / drawn).clamp(*EXPOSURES)
        self.target = self.image / level[:, None, None, None]
        self.fit = self.fit._replace(error=squared_error(self.target, start[1]))
        self._descend(torch.arange(len(self.image), device=self.image.device))
        self.watch.expect("hypotheses", ROUND * self.watch.cost("step"))
        for turn in range(self.options.rounds):
            if not self._reconsider(first=turn == 0):
                break
        before = squared_error(self.image, start[1])
        # Better only but for the exposure, it goes back to where it was.
        worse = (squared_error(self.image, self.fit.picture) > before).nonzero()[:, 0]
        back = self.fit.at(worse)._replace(scene=start[0][worse], picture=start[1][worse])
        self._put(worse, back)
        self.belief.restore(worse)
        after = squared_error(self.image, self.fit.picture)
        of_network = self.belief.estimate(self.fit.scene)
        self._curve()
        pixels = self.image[0].numel()
        estimate = self.belief.estimate(self.fit.scene)
        return Refined(estimate, before / pixels, after / pixels, self.curved, of_network)

    def _descend(self, rows: Tensor) -> None:
        """Gauss-Newton for these images, all of them a step before any of them the next."""
        for _ in range(self.options.steps):
            going = []
            for part in rows.split(TOGETHER):
                if not self.watch.allows("step", len(part), reserve=self._reserve):
                    return
                was = self.fit.error[part]
                with self.watch.spending("step", len(part)):
                    self._put(part, step(self.drawing, self.fit.at(part), self.target[part]))
                going.append(part[self.fit.error[part] < (1 - CONVERGED) * was])
            rows = torch.cat(going)
            if not len(rows):
                return

    @property
    def _reserve(self) -> float:
        """Seconds that the curvature of all images will take in the end: a step or less."""
        return self.watch.cost("step", len(self.image))

    def _put(self, rows: Tensor, fit: Fit) -> None:
        for mine, theirs in zip(self.fit.scene.tensors(), fit.scene.tensors(), strict=True):
            mine[rows] = theirs
        for mine, theirs in zip(self.fit[1:], fit[1:], strict=True):
            mine[rows] = theirs

    def _reconsider(self, *, first: bool) -> bool:
        """Tries other hypotheses for images that are not explained; whether any was better."""
        better = []
        for row in doubts(self.target, self.fit.picture).excess.nonzero()[:, 0].tolist():
            if not self.watch.allows("hypotheses", 1, reserve=self._reserve):
                break
            with self.watch.spending("hypotheses", 1):
                if self._try_others(row, first=first):
                    better.append(row)
        if better:
            self._descend(torch.tensor(better, device=self.image.device))
        return bool(better)

    def _try_others(self, row: int, *, first: bool) -> bool:
        """Replaces the scene of one image by a hypothesis that explains it better, if any does."""
        at = torch.tensor([row], device=self.image.device)
        current, target = self.fit.at(at), self.target[at]
        place = doubts(target, current.picture).place[0]
        scene, next_one = current.scene, current.scene
        if first:  # what the network would have said next is still in its slot
            more = torch.arange(scene.slots, device=place.device) <= scene.count[:, None]
            next_one = replace(scene, presence=more)
        height, width = target.shape[-2:]
        # A list of a few dozen scenes is made one by one, which is no work for a card.
        here = scene.to("cpu"), next_one.to("cpu"), place.cpu()
        others = alternatives(self.spec, *here, height, width)
        if others is None:
            return False
        scenes = others.scenes.to(place.device)
        pictures = self.drawing.render(scenes)
        errors = squared_error(target, pictures, REACH)
        beam = promising(errors.tolist(), others.family.tolist())
        chosen = torch.tensor(beam, device=place.device)
        changed = others.changed[beam].to(place.device)
        still = torch.zeros_like(changed[:, :1])  # the camera
        wanted = torch.cat([changed.repeat_interleave(2, dim=1), changed, still], dim=1)
        images = target.expand(len(beam), -1, -1, -1)
        damping = current.damping.expand(len(beam))
        fit = Fit(scenes[chosen], pictures[chosen], errors[chosen], damping)
        for _ in range(COARSE):
            fit = step(self.drawing, fit, images, blur=REACH, wanted=wanted)
        fit = fit._replace(error=squared_error(images, fit.picture))
        for _ in range(FINE):
            fit = step(self.drawing, fit, images, wanted=wanted)
        more = (fit.scene.count - scene.count).clamp_min(0)
        variance = (current.error / target[0].numel()).clamp_min(LEAST_STD**2)
        price = 2 * EVIDENCE * variance * more
        price = price.where(stand_apart(self.spec, fit.scene) | (more == 0), math.inf)
        best = int((fit.error + price).argmin())
        if not float(fit.error[best] + price[best]) < float(current.error):
            return False
        self._accept(row, fit.at(torch.tensor([best], device=place.device)))
        return True

    def _accept(self, row: int, fit: Fit) -> None:
        """The scene of image `row` becomes that of `fit`, its present objects first."""
        order = (~fit.scene.presence[0]).int().argsort(stable=True)
        self.belief.exchange(row, self.fit.scene[row], fit.scene, order)
        packed = fit._replace(scene=fit.scene.permute_slots(order))
        self._put(torch.tensor([row], device=order.device), packed)

    def _curve(self) -> None:
        """Spreads from the curvature where each image has come to."""
        for part in torch.arange(len(self.image), device=self.image.device).split(TOGETHER):
            if not self.watch.allows("step", len(part)):
                return
            self._curve_part(part)
            self.curved[part] = True

    def _curve_part(self, rows: Tensor) -> None:
        fit = self.fit.at(rows)
        width = 3 * fit.scene.slots + 1
        wanted = torch.ones(len(rows), width, dtype=torch.bool, device=rows.device)
        slopes = self.drawing.jacobian(fit.scene, fit.picture, wanted)
        self.belief.sharpen(rows, fit.scene, covariance(slopes, self.target[rows] - fit.picture))


def _copy(scene: Scene) -> Scene:
    return Scene(*(value.clone() for value in scene.tensors()))

"""Render and compare: from the network's answer to the scene that explains the image best.

First the poses and the camera, by damped Gauss-Newton. Where the image stays unexplained after
that, the other things that it could show: an object turned, of another class, absent, two read as
one, one more. What is tried competes by its error on the image; nothing is accepted that does not
lessen it, so that a scene never ends with a worse picture than it started with.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from inference.estimate import Estimate
from inference.gauss_newton import Drawing, Fit, begin, covariance, squared_error, step
from inference.hypotheses import alternatives, doubts
from inference.watch import Watch
from renderer.scene import Scene
from renderer.spec import SceneSpec

TOGETHER = 16  # images whose slopes are in memory at once
# What pieces of work take at first, until they have been measured: a step so many pictures, a round
# of hypotheses so many steps.
STEP, ROUND = 12, 15
CONVERGED = 1e-3  # a step that lessens the error by a smaller share is the last
EXPOSURES = (0.8, 1.25)  # how much brighter an image may be than its picture

BEAM = 4  # hypotheses that are followed up
ALIKE = 2  # of a family, at most
REACH = 1.5  # px, blur by which they are compared and first follow their slopes
COARSE, FINE = 2, 2  # steps of theirs, with that blur and without
# One more object has to explain that much more: it always explains a little.
EVIDENCE = 20.0  # nats
LEAST_STD = 0.01  # of a pixel: how well a picture can be expected to match at all
APART = 0.5  # of the smaller radius: objects do not stand closer than that, middle to middle


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
        self.first, self.image = estimate, image
        # All that changes has its own memory from here on.
        self.scene = _copy(estimate.scene)
        self.count = estimate.count_probabilities.clone()
        self.classes = estimate.class_probabilities.clone()
        self.place_covariance = estimate.position_covariance.clone()
        self.yaw_std, self.azimuth_std = estimate.yaw_std.clone(), estimate.azimuth_std.clone()
        self.curved = torch.zeros(len(image), dtype=torch.bool, device=image.device)

    def run(self) -> Refined:
        """See `refine`."""
        if not len(self.image):
            nothing = self.image.new_zeros(0)
            return Refined(self.first, nothing, nothing, self.curved)
        with self.watch.spending("picture", len(self.image)):
            self.fit = begin(self.drawing, self.scene, self.image)
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
        self._go_back(worse, *start)
        after = squared_error(self.image, self.fit.picture)
        self._curve()
        pixels = self.image[0].numel()
        return Refined(self._estimate(), before / pixels, after / pixels, self.curved)

    def _go_back(self, rows: Tensor, scene: Scene, picture: Tensor) -> None:
        fit = self.fit.at(rows)._replace(scene=scene[rows], picture=picture[rows])
        self._put(rows, fit)
        self.count[rows] = self.first.count_probabilities[rows]
        self.classes[rows] = self.first.class_probabilities[rows]
        self.place_covariance[rows] = self.first.position_covariance[rows]
        self.yaw_std[rows] = self.first.yaw_std[rows]

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
        others = alternatives(self.spec, scene, next_one, place, height, width)
        if others is None:
            return False
        pictures = self.drawing.render(others.scenes)
        errors = squared_error(target, pictures, REACH)
        beam = _beam(errors.tolist(), others.family.tolist())
        chosen = torch.tensor(beam, device=place.device)
        wanted = torch.zeros(len(chosen), 3 * scene.slots + 1, dtype=torch.bool)
        changed = others.changed[beam]
        wanted[:, : 2 * scene.slots] = changed.repeat_interleave(2, dim=1)
        wanted[:, 2 * scene.slots : -1] = changed
        wanted = wanted.to(place.device)
        images = target.expand(len(chosen), -1, -1, -1)
        fit = Fit(
            others.scenes[chosen],
            pictures[chosen],
            errors[chosen],
            current.damping.expand(len(chosen)),
        )
        for _ in range(COARSE):
            fit = step(self.drawing, fit, images, blur=REACH, wanted=wanted)
        fit = fit._replace(error=squared_error(images, fit.picture))
        for _ in range(FINE):
            fit = step(self.drawing, fit, images, wanted=wanted)
        more = (fit.scene.count - scene.count).clamp_min(0)
        variance = (current.error / target[0].numel()).clamp_min(LEAST_STD**2)
        price = 2 * EVIDENCE * variance * more
        price = price.where(_apart(self.spec, fit.scene) | (more == 0), math.inf)
        best = int((fit.error + price).argmin())
        if not float(fit.error[best] + price[best]) < float(current.error):
            return False
        self._accept(row, fit.at(torch.tensor([best], device=place.device)))
        return True

    def _accept(self, row: int, fit: Fit) -> None:
        """The scene of image `row` becomes that of `fit`, its present objects first."""
        was, now = self.fit.scene[row], fit.scene
        order = (~now.presence[0]).int().argsort(stable=True)
        old, new = int(was.count[0]), int(now.count[0])
        for slot in now.presence[0].nonzero()[:, 0].tolist():
            # As sure as the network was, of what the picture says instead.
            likely = int(self.classes[row, slot].argmax())
            _swap(self.classes[row, slot], likely, int(now.identity[0, slot]))
        if old != new:
            _swap(self.count[row], old, new)
        for value in (self.classes, self.place_covariance, self.yaw_std):
            value[row] = value[row, order]
        self._put(
            torch.tensor([row], device=order.device), fit._replace(scene=now.permute_slots(order))
        )

    def _curve(self) -> None:
        """Spreads from the curvature where each image has come to."""
        for part in torch.arange(len(self.image), device=self.image.device).split(TOGETHER):
            if not self.watch.allows("step", len(part)):
                return
            self._curve_part(part)
            self.curved[part] = True

    def _curve_part(self, rows: Tensor) -> None:
        fit = self.fit.at(rows)
        scene, slots = fit.scene, fit.scene.slots
        wanted = torch.ones(len(rows), 3 * slots + 1, dtype=torch.bool, device=rows.device)
        slopes = self.drawing.jacobian(scene, fit.picture, wanted)
        spread = covariance(slopes, self.target[rows] - fit.picture).to(self.image.dtype)
        x = 2 * torch.arange(slots, device=rows.device)
        pair = torch.stack([x, x + 1], dim=1)  # [K, 2]
        place = spread[:, pair[:, :, None], pair[:, None, :]]
        yaw = spread.diagonal(dim1=1, dim2=2)[:, 2 * slots : -1].sqrt()
        orders = torch.tensor(self.spec.symmetry_orders, device=rows.device)
        turns = orders[scene.identity.where(scene.presence, 0)] != 0
        there = scene.presence
        self.place_covariance[rows] = place.where(
            there[..., None, None], self.place_covariance[rows]
        )
        self.yaw_std[rows] = yaw.where(turns, math.inf).where(there, self.yaw_std[rows])
        if self.spec.camera.moves:
            self.azimuth_std[rows] = spread[:, -1, -1].sqrt()

    def _estimate(self) -> Estimate:
        at_least = self.count.flip(1).cumsum(1).flip(1)
        return Estimate(
            self.fit.scene,
            self.count,
            at_least[:, 1:],
            self.classes,
            self.place_covariance,
            self.yaw_std,
            self.azimuth_std,
        )


def _beam(errors: list[float], family: list[int]) -> list[int]:
    """The most promising hypotheses, not all of one family."""
    chosen: list[int] = []
    for index in sorted(range(len(errors)), key=errors.__getitem__):
        if sum(family[one] == family[index] for one in chosen) < ALIKE:
            chosen.append(index)
        if len(chosen) == BEAM:
            break
    return chosen


def _apart(spec: SceneSpec, scene: Scene) -> Tensor:
    """Which scenes, `[B]` bool, have no two objects in the same place, where they may not."""
    if not spec.placement.no_overlap:
        return torch.ones(len(scene), dtype=torch.bool, device=scene.azimuth.device)
    radii = scene.position.new_tensor([geometry.radius for geometry in spec.geometries])
    radius = radii[scene.identity.where(scene.presence, 0)]
    near = torch.minimum(radius[:, :, None], radius[:, None]) * APART
    both = scene.presence[:, :, None] & scene.presence[:, None]
    both = both & ~torch.eye(scene.slots, dtype=torch.bool, device=both.device)
    return ~((torch.cdist(scene.position, scene.position) < near) & both).any(dim=(1, 2))


def _swap(values: Tensor, one: int, other: int) -> None:
    values[[one, other]] = values[[other, one]]


def _copy(scene: Scene) -> Scene:
    return Scene(*(value.clone() for value in scene.tensors()))

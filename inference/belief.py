"""What an estimate says beside its scenes, kept in step with scenes that change."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference.errors import ErrorLaw
from inference.estimate import Estimate
from renderer.scene import Scene


class Belief:
    """The probabilities and spreads of an estimate, with a memory of their own.

    Args:
        estimate: of B images; stays as it is.
        orders: symmetry order of each class.
        moves: whether the camera does.
    """

    def __init__(self, estimate: Estimate, orders: tuple[int, ...], *, moves: bool) -> None:
        self._first, self._orders, self._moves = estimate, orders, moves
        self._count = estimate.count_probabilities.clone()
        self._classes = estimate.class_probabilities.clone()
        self._place_covariance = estimate.position_covariance.clone()
        self._yaw_std, self._azimuth_std = estimate.yaw_std.clone(), estimate.azimuth_std.clone()
        self._place_law, self._yaw_law = estimate.position_law.clone(), estimate.yaw_law.clone()
        self._azimuth_law = estimate.azimuth_law.clone()

    def exchange(self, row: int, was: Scene, now: Scene, order: Tensor) -> None:
        """Says of the scene `now` of an image what it said of `was`: as sure, of something else.

        Args:
            row: which image.
            was: its one scene.
            now: what took its place, slot by slot.
            order: `[K]`, in which the slots of `now` come from here on.
        """
        for slot in now.presence[0].nonzero()[:, 0].tolist():
            classes = self._classes[row, slot]
            _swap(classes, int(classes.argmax()), int(now.identity[0, slot]))
        _swap(self._count[row], int(was.count[0]), int(now.count[0]))
        of_slots = (self._classes, self._place_covariance, self._yaw_std)
        for value in (*of_slots, self._place_law, self._yaw_law):
            value[row] = value[row, order]

    def restore(self, rows: Tensor) -> None:
        """Says of these images `[R]` what the estimate said."""
        first = self._first
        self._count[rows] = first.count_probabilities[rows]
        self._classes[rows] = first.class_probabilities[rows]
        self._place_covariance[rows] = first.position_covariance[rows]
        self._yaw_std[rows] = first.yaw_std[rows]
        self._place_law[rows], self._yaw_law[rows] = first.position_law[rows], first.yaw_law[rows]

    def sharpen(self, rows: Tensor, scene: Scene, covariance: Tensor) -> None:
        """Takes the spreads of images `rows` from a covariance of all freedoms.

        Args:
            rows: `[R]`.
            scene: their R scenes.
            covariance: `[R, 3K + 1, 3K + 1]` m and rad, as `inference.gauss_newton` orders them.
        """
        slots, there = scene.slots, scene.presence
        spread = covariance.to(self._place_covariance)
        x = 2 * torch.arange(slots, device=spread.device)
        pair = torch.stack([x, x + 1], dim=1)  # [K, 2]
        place = spread[:, pair[:, :, None], pair[:, None, :]]
        yaw = spread.diagonal(dim1=1, dim2=2)[:, 2 * slots : -1].sqrt()
        orders = torch.tensor(self._orders, device=spread.device)
        turns = orders[scene.identity.where(there, 0)] != 0
        before = self._place_covariance[rows]
        self._place_covariance[rows] = place.where(there[..., None, None], before)
        self._yaw_std[rows] = yaw.where(turns, math.inf).where(there, self._yaw_std[rows])
        plain = ErrorLaw.normal(torch.ones_like(yaw)).table()
        self._place_law[rows] = plain.where(there[..., None], self._place_law[rows])
        self._yaw_law[rows] = ErrorLaw.normal(self._yaw_std[rows]).table()
        if self._moves:
            self._azimuth_std[rows] = spread[:, -1, -1].sqrt()
            self._azimuth_law[rows] = ErrorLaw.normal(self._azimuth_std[rows]).table()

    def estimate(self, scene: Scene) -> Estimate:
        """The estimate with these B scenes; what is said of it later does not change it."""
        at_least = self._count.flip(1).cumsum(1).flip(1)
        said = (self._classes, self._place_covariance, self._yaw_std, self._azimuth_std)
        laws = (self._place_law, self._yaw_law, self._azimuth_law)
        count, later = self._count.clone(), (value.clone() for value in (*said, *laws))
        return Estimate(scene, count, at_least[:, 1:], *later)


def _swap(values: Tensor, one: int, other: int) -> None:
    values[[one, other]] = values[[other, one]]

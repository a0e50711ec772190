"""When a run has learned enough: goals on held-out scenes, patience, and the best weights.

A run that is to stop does not stop at once. Its schedules, made for all of its steps, run to their
end in a few: the learning rate falls to nothing, and positions count as finely as they can. What
it learned while both were coarse would otherwise be worth less than it is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from inference.build import AnyPosterior

SHARES = ("count_accuracy", "recall")  # greater is better
ERRORS = ("position_error_m", "yaw_error_rad", "azimuth_error_rad")  # less is better
PROGRESS = 0.05  # part of an error or of what is missing to 1 that has to go, to be called that
SLACK = 0.01  # of count and recall together: 256 held-out scenes tell no finer


class Stopping(BaseModel):
    """What is good enough, and how long to wait for better."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count_accuracy: float = Field(default=0.98, gt=0, le=1)
    recall: float = Field(default=0.97, gt=0, le=1)
    position_error_m: float = Field(default=0.003, gt=0)  # medians
    yaw_error_rad: float = Field(default=math.radians(3), gt=0)
    azimuth_error_rad: float = Field(default=math.radians(0.3), gt=0)
    twice: int = Field(default=2, ge=1)  # measurements in a row that have to hold
    patience: int = Field(default=6, ge=1)  # measurements without progress
    least_part: float = Field(default=0.3, ge=0, le=1)  # of the run, before patience may end
    landing: float = Field(default=0.25, gt=0)  # steps of the landing, by the steps before it
    least_landing: int = Field(default=500, ge=1)  # steps

    def reason(self, history: Sequence[dict[str, Any]], part: float) -> str | None:
        """Why a run should come to its end; None if it should go on.

        Args:
            history: what was measured on held-out scenes, in order.
            part: how much of the run is done, in [0, 1].
        """
        latest = history[-self.twice :]
        if len(latest) == self.twice and all(self.holds(row) for row in latest):
            return "the goals hold on held-out scenes"
        if part < self.least_part or len(history) <= self.patience:
            return None
        before, since = history[: -self.patience], history[-self.patience :]
        for name in (*SHARES, *ERRORS):
            old, new = _least_missing(before, name), _least_missing(since, name)
            if new is not None and (old is None or new < (1 - PROGRESS) * old):
                return None
        return f"no progress on held-out scenes in {self.patience} measurements"

    def holds(self, row: dict[str, Any]) -> bool:
        """Whether one measurement is good enough; what a world has not got is."""
        shares = all(row[name] is not None and row[name] >= getattr(self, name) for name in SHARES)
        errors = all(row[name] is None or row[name] <= getattr(self, name) for name in ERRORS)
        return shares and errors

    def steps_to_land(self, done: int) -> int:
        """Steps from the decision to the end."""
        return max(self.least_landing, math.ceil(self.landing * done))

    def __str__(self) -> str:
        degrees = math.degrees
        return (
            f"count >= {self.count_accuracy:g}, recall >= {self.recall:g}, median errors <= "
            f"{1000 * self.position_error_m:g} mm, {degrees(self.yaw_error_rad):g}° of yaw and "
            f"{degrees(self.azimuth_error_rad):g}° of the camera"
        )


class Landing(NamedTuple):
    """The way of a run's schedules to their end, once it is known to be near."""

    first: int  # step at which it was decided
    last: int  # step of the end
    part: float  # of the run that was done at `first`

    def at(self, step: int) -> float:
        """How much of the run counts as done, in [0, 1]."""
        share = (step - self.first) / max(1, self.last - self.first)
        return self.part + (1 - self.part) * min(1.0, share)


class Best:
    """The latest weights that are not clearly worse than the best that there were.

    Errors shrink to the last step, and shares are told to a hundredth at best: of weights that are
    about as good, the later ones are better.

    Args:
        network: that learns; it is copied.
    """

    def __init__(self, network: AnyPosterior) -> None:
        self.network = copy.deepcopy(network)
        self.step, self.score = 0, -math.inf

    def offer(self, network: AnyPosterior, step: int, row: dict[str, Any]) -> None:
        """Keeps the weights of `step` if what was measured of them allows it."""
        score = sum(row[name] or 0.0 for name in SHARES)
        if score >= self.score - SLACK:
            self.network.load_state_dict(network.state_dict())
            self.step = step
        self.score = max(self.score, score)


def _least_missing(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    if name in SHARES:
        values = [1 - value for value in values]
    return min(values, default=None)

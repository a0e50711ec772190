"""Fair timing on a machine that is not ours alone: contenders take turns, and medians count."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LEAST_ROUNDS = 3  # the fewest with a median that one disturbed round cannot move


@dataclass(frozen=True)
class Timing:
    """How long one contender took, one value for each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds, s."""
        return statistics.median(self.seconds)

    def record(self) -> dict[str, Any]:
        """Plain data for JSON; every round is kept, so that other statistics can be had later."""
        return {
            "median": self.median,
            "min": min(self.seconds),
            "max": max(self.seconds),
            "rounds": list(self.seconds),
        }

    def rate(self, items: int) -> dict[str, float]:
        """`items` per second: by the median, the slowest and the fastest round."""
        return {
            "median": items / self.median,
            "min": items / max(self.seconds),
            "max": items / min(self.seconds),
        }


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    patience: float = math.inf,
    warmups: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Times the contenders in turns, A B C A B C …: a slow minute of the machine hits all alike.

    Args:
        contenders: what to call, by name. Calls must return only when their work is done.
        rounds: how often each is timed, at most.
        patience: s after which no other round is begun; `LEAST_ROUNDS` are timed all the same, if
            so many are wanted.
        warmups: rounds before these that do not count; the first call compiles and allocates.
        clock: seconds.

    Raises:
        ValueError: no round to time.
    """
    if rounds < 1:
        raise ValueError("rounds must be at least 1")
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    begin = clock()
    for turn in range(warmups + rounds):
        if turn - warmups >= LEAST_ROUNDS and clock() - begin > patience:
            break
        for name, work in contenders.items():
            start = clock()
            work()
            elapsed = clock() - start
            if turn >= warmups:
                seconds[name].append(elapsed)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def ratio(timing: Timing, reference: Timing) -> float:
    """How many times as long as the reference, by the medians."""
    return timing.median / reference.median

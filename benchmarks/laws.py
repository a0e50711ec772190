"""Straight lines through measurements: what is paid once, and what is paid for each more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Line:
    """`once + each * x`."""

    once: float
    each: float
    error: float
    """How far the worst measurement is from the line, as a part of the measurement."""

    @staticmethod
    def through(x: Sequence[float], y: Sequence[float]) -> Line:
        """The line of least squared relative error, for values that span orders of magnitude.

        Args:
            x: what grows, at two different values at least.
            y: what was measured, greater than zero.

        Raises:
            ValueError: there are not two different x.
        """
        if len(set(x)) < 2:
            raise ValueError("a line needs measurements at two different places")
        places, values = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        terms = np.stack([1 / values, places / values], axis=1)
        (once, each), *_ = np.linalg.lstsq(terms, np.ones(len(values)), rcond=None)
        error = np.abs(terms @ [once, each] - 1).max()
        return Line(float(once), float(each), float(error))

    def record(self) -> dict[str, float]:
        """Plain data for JSON."""
        return asdict(self)

"""A time limit for work in pieces, judging by those before whether there is time for one more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watch:
    """How long pieces of work took, and what is left.

    Args:
        seconds: until the end, from now.
        clock: s.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._clock, self._end = clock, clock() + seconds
        self._longest: dict[str, float] = {}

    def expect(self, kind: str, seconds: float) -> None:
        """Says how long such a piece will take for an image, before there was one."""
        self._longest.setdefault(kind, seconds)

    def cost(self, kind: str, images: int = 1) -> float:
        """Seconds that such a piece for so many images will take; 0 before the first."""
        return images * self._longest.get(kind, 0.0)

    def allows(self, kind: str, images: int, *, reserve: float = 0.0) -> bool:
        """Whether such a piece will be done `reserve` seconds before the end."""
        return self._clock() + self.cost(kind, images) + reserve <= self._end

    @contextmanager
    def spending(self, kind: str, images: int) -> Iterator[None]:
        """Remembers how long what is done within took for each of the images."""
        start = self._clock()
        yield
        each = (self._clock() - start) / images
        self._longest[kind] = max(each, self._longest.get(kind, 0.0))

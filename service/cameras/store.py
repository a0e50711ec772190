"""Where the latest scene of each camera is kept: the interface of all stores."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict


class FullError(Exception):
    """There are as many cameras as may be."""


class UnavailableError(Exception):
    """The store cannot be reached now."""


class Ticket(NamedTuple):
    """A frame's place in the order in which a camera's frames arrived."""

    name: str
    epoch: str  # of the camera's life; another after it was deleted and made again
    frame: int  # from 1


class Record(BaseModel):
    """The latest scene of a camera."""

    model_config = ConfigDict(frozen=True)

    name: str
    epoch: str
    frame: int
    scene: str  # JSON of a CameraScene
    objects: int
    stamp: str  # when the frame arrived, RFC 3339
    next_id: int  # the least id that no object of this camera has had


class Outcome(StrEnum):
    """How an attempt to write ended."""

    WRITTEN = "written"
    CHANGED = "changed"  # the record to follow is not the latest any more: read it and try again
    OVERTAKEN = "overtaken"  # a later frame is there already
    GONE = "gone"  # the camera was deleted since the frame arrived


class Signals:
    """Wakes whoever waits for a camera to change."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def listen(self, name: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the camera changed; listen first, then read."""
        event = asyncio.Event()
        self._listeners.setdefault(name, set()).add(event)
        try:
            yield event
        finally:
            listeners = self._listeners[name]
            listeners.discard(event)
            if not listeners:
                del self._listeners[name]

    def changed(self, name: str) -> None:
        """Wakes who waits for one camera."""
        for event in self._listeners.get(name, ()):
            event.set()

    def everything_changed(self) -> None:
        """Wakes all."""
        for name in list(self._listeners):
            self.changed(name)


class Store(Protocol):
    """The latest record of each of a bounded number of cameras; one unused for long is forgotten.

    Everything but `start` and `stop` may raise UnavailableError.
    """

    signals: Signals

    async def start(self) -> None:
        """Makes it usable; does not fail when it cannot be reached."""

    async def stop(self) -> None:
        """Frees everything."""

    async def open(self, name: str) -> Ticket:
        """Gives a frame that just arrived its place.

        Raises:
            FullError: this would be one camera too many.
        """
        ...

    async def read(self, name: str) -> Record | None:
        """The latest record, or one that was the latest some milliseconds ago."""
        ...

    async def latest(self, name: str) -> Record | None:
        """The latest record."""
        ...

    async def write(self, record: Record, *, after: int) -> Outcome:
        """Makes a record the latest, if it follows the latest.

        Args:
            record: to be written.
            after: the frame of the record that it was made to follow; 0 when there was none.

        Raises:
            FullError: this would be one camera too many.
        """
        ...

    async def delete(self, name: str) -> bool:
        """Forgets a camera; whether it was there."""
        ...

    async def all(self) -> list[Record]:
        """The latest record of every camera, by name."""
        ...

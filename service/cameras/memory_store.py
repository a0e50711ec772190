"""Cameras in the memory of one process."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from service.cameras.store import FullError, Outcome, Record, Signals, Ticket


@dataclass
class _Camera:
    epoch: str
    used: float  # s, when a frame last arrived
    arrivals: int = 0
    record: Record | None = None


class MemoryStore:
    """Forgets everything when the process ends; other processes do not see it.

    Args:
        most: cameras at once.
        expiry: s without a frame, after which a camera is forgotten.
        clock: s, for tests.
    """

    def __init__(
        self, *, most: int, expiry: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._expiry, self._clock = most, expiry, clock
        self._cameras: dict[str, _Camera] = {}
        self.signals = Signals()

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Wakes who still waits."""
        self.signals.everything_changed()

    async def open(self, name: str) -> Ticket:
        """See `Store`."""
        self._forget()
        camera = self._cameras.get(name)
        if camera is None:
            if len(self._cameras) >= self._most:
                raise FullError
            camera = self._cameras[name] = _Camera(uuid.uuid4().hex[:8], 0.0)
        camera.used = self._clock()
        camera.arrivals += 1
        return Ticket(name, camera.epoch, camera.arrivals)

    async def read(self, name: str) -> Record | None:
        """See `Store`."""
        camera = self._cameras.get(name)
        if camera is None or camera.used < self._clock() - self._expiry:
            return None
        return camera.record

    latest = read

    async def write(self, record: Record, *, after: int) -> Outcome:
        """See `Store`."""
        camera = self._cameras.get(record.name)
        if camera is None or camera.epoch != record.epoch:
            return Outcome.GONE
        last = camera.record.frame if camera.record is not None else 0
        if last >= record.frame:
            return Outcome.OVERTAKEN
        if last != after:
            return Outcome.CHANGED
        camera.record, camera.used = record, self._clock()
        self.signals.changed(record.name)
        return Outcome.WRITTEN

    async def delete(self, name: str) -> bool:
        """See `Store`."""
        self._forget()
        camera = self._cameras.pop(name, None)
        self.signals.changed(name)
        return camera is not None and camera.record is not None

    async def all(self) -> list[Record]:
        """See `Store`."""
        self._forget()
        cameras = (self._cameras[name] for name in sorted(self._cameras))
        return [camera.record for camera in cameras if camera.record is not None]

    def _forget(self) -> None:
        limit = self._clock() - self._expiry
        for name in [name for name, camera in self._cameras.items() if camera.used < limit]:
            del self._cameras[name]
            self.signals.changed(name)

"""What can be done with cameras, whatever store keeps them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from service.cameras.schemas import CameraScene, FrameSource
from service.cameras.store import Outcome, Record, Store, Ticket
from service.cameras.tracking import keep_ids
from service.schemas import InferResponse

SLICE = 0.5  # s, after which one who waits looks whether the server still runs


class OvertakenError(Exception):
    """A later frame of the camera was answered first."""


class DeletedError(Exception):
    """The camera was deleted while its frame was worked on."""


class CrowdedError(Exception):
    """As many wait as may."""


class Cameras:
    """The latest scene of each camera.

    Args:
        store: that keeps them.
        most_waiting: how many may wait for changes at once.
        ending: whether those who wait should leave, because the server is about to end.
    """

    def __init__(
        self, store: Store, *, most_waiting: int, ending: Callable[[], bool] = lambda: False
    ) -> None:
        self.store, self._ending = store, ending
        self._most_waiting, self._waiting = most_waiting, 0

    async def publish(self, ticket: Ticket, answer: InferResponse) -> Record:
        """Makes the answer to a frame the camera's latest scene.

        Its objects get the ids that they had in the scene before.

        Raises:
            OvertakenError: a later frame's scene is there already.
            DeletedError: the camera is gone.
            FullError: there are too many cameras.
            UnavailableError: the store cannot be reached.
        """
        while True:
            previous = await self.store.latest(ticket.name)
            if previous is not None and previous.epoch == ticket.epoch:
                before = CameraScene.model_validate_json(previous.scene).objects
                objects, next_id = keep_ids(before, answer.objects, previous.next_id)
                after = previous.frame
            else:
                (objects, next_id), after = keep_ids([], answer.objects, 0), 0
            record = _record(ticket, answer.model_copy(update={"objects": objects}), next_id)
            match await self.store.write(record, after=after):
                case Outcome.WRITTEN:
                    return record
                case Outcome.OVERTAKEN:
                    raise OvertakenError
                case Outcome.GONE:
                    raise DeletedError
                case Outcome.CHANGED:
                    continue

    async def wait(
        self, name: str, seconds: float, *, news: Callable[[Record | None], bool]
    ) -> Record | None:
        """The latest record as soon as it is news; as it is when the time is over.

        Args:
            name: of the camera.
            seconds: to wait at most.
            news: whether a record, or that there is none, is what is waited for.

        Raises:
            CrowdedError: as many wait as may.
            UnavailableError: the store cannot be reached, or was lost meanwhile.
        """
        record = await self.store.read(name)
        if seconds <= 0.0 or news(record):
            return record
        if self._waiting >= self._most_waiting:
            raise CrowdedError
        self._waiting += 1
        try:
            return await self._wait(name, time.monotonic() + seconds, news)
        finally:
            self._waiting -= 1

    async def _wait(
        self, name: str, deadline: float, news: Callable[[Record | None], bool]
    ) -> Record | None:
        with self.store.signals.listen(name) as changed:
            while True:
                changed.clear()
                record = await self.store.read(name)
                left = deadline - time.monotonic()
                if news(record) or left <= 0.0 or self._ending():
                    return record
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, SLICE)):
                        await changed.wait()


def _record(ticket: Ticket, answer: InferResponse, next_id: int) -> Record:
    scene = CameraScene(**dict(answer), source=FrameSource(name=ticket.name, frame=ticket.frame))
    return Record(
        name=ticket.name,
        epoch=ticket.epoch,
        frame=ticket.frame,
        scene=scene.model_dump_json(),
        objects=len(scene.objects),
        stamp=scene.stamp,
        next_id=next_id,
    )

"""The service between its routes and its engine: what may wait, what is ready, what ends."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from inference.checkpoint import Checkpoint
from inference.images import ImageError, Picture
from service import problems
from service.batching import Job, LateError, StoppedError
from service.engine import Answer
from service.lane import Infers, Lane
from service.metrics import Metrics
from service.problems import Problem, logger
from service.settings import Settings

T = TypeVar("T")

_IMAGE_PROBLEMS = {
    "empty": problems.NO_IMAGE,
    "too-many-bytes": problems.TOO_LARGE,
    "too-many-pixels": problems.TOO_MANY_PIXELS,
    "not-an-image": problems.NOT_AN_IMAGE,
    "damaged": problems.DAMAGED,
}

SOON, LATER = {"Retry-After": "1"}, {"Retry-After": "5"}


class Runtime:
    """The engines of a running application, what may wait for them, and their life.

    Args:
        settings: of the service.
        load: makes what makes the engines of one model, each on the thread where it will be used.
        engines: of one model.
    """

    def __init__(
        self, settings: Settings, load: Callable[[], Callable[[], Infers]], engines: int
    ) -> None:
        self.settings, self._load, self._engines = settings, load, engines
        self.metrics = Metrics()
        # A large picture takes hundreds of megabytes while it is decoded: few at a time.
        self._decoders = ThreadPoolExecutor(settings.decoders, thread_name_prefix="decoder")
        self._uploads = 0
        self._reloading = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._unready: str | None = "The model is being loaded; ask again in a few seconds."
        # Set when the server is about to end: it still answers, but wants no new clients.
        self.draining = False

    async def start(self) -> None:
        """Loads the engines; `check_ready` tells when their first inference is done."""
        lane = self._lane_of_now()
        await lane.start()
        self._unready = "The model runs its first inference; ask again in a few seconds."
        self._take_over(lane)
        self.metrics.watch(
            lambda: self._lane.inside, lambda: self._uploads, lambda: self._not_ready() is None
        )
        self._background(self._warm_up(lane))

    async def stop(self) -> None:
        """Lets running work finish and frees everything."""
        await self._lane.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._decoders.shutdown(wait=False)

    async def reload(self) -> Checkpoint:
        """Loads the checkpoint anew, tries it, and has it answer from now on; gives it.

        Meanwhile, and when it cannot be used, the one before goes on answering.

        Raises:
            Problem: why the one before goes on answering.
        """
        if self._reloading:
            raise Problem(problems.RELOAD, "Another reload is running; wait for its end.")
        self._reloading = True
        lane = self._lane_of_now()
        try:
            await lane.start()
            await lane.warm_up()
        except Exception as error:
            reason = str(error) or f"its engine failed ({type(error).__name__})"
            logger.warning("the model was not reloaded: %s", reason)
            self.metrics.reloads.labels("refused").inc()
            await lane.stop()
            raise Problem(
                problems.RELOAD, f"{reason}. The model from before goes on answering."
            ) from None
        finally:
            self._reloading = False
        before = self._lane
        self._take_over(lane)
        self._unready = None
        self._background(before.stop())
        self.metrics.reloads.labels("done").inc()
        logger.info("%s %s answers now", lane.checkpoint.name, lane.checkpoint.version)
        return lane.checkpoint

    @property
    def checkpoint(self) -> Checkpoint:
        """The one that answers now; a reload changes it."""
        return self._lane.checkpoint

    def check_ready(self) -> None:
        """Raises a Problem when the engine cannot answer."""
        if detail := self._not_able():
            raise Problem(problems.NOT_READY, detail, LATER)

    def check_readiness(self) -> None:
        """Raises a Problem when no new clients should come: as above, or the server ends."""
        if detail := self._not_ready():
            raise Problem(problems.NOT_READY, detail, LATER)

    def check_room(self, pictures: int = 1) -> None:
        """Raises a Problem when some more pictures would have to wait for too long."""
        inside, seconds = self._lane.inside, self._lane.waiting_seconds
        if inside + pictures > self.settings.queue_size or seconds > self.settings.queue_seconds:
            raise Problem(
                problems.BUSY,
                f"{inside} pictures wait already, for some {seconds:.1f} seconds; ask again then, "
                "less often, or start another server.",
                {"Retry-After": str(max(1, math.ceil(seconds)))},
            )

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Holds one of the places for requests with a body.

        Raises:
            Problem: all are taken, or what the body holds would have to wait for too long.
        """
        if self._unready is None:
            self.check_room()
        if self._uploads >= self.settings.max_uploads:
            raise Problem(
                problems.BUSY,
                f"{self._uploads} requests are being received already, as many as may; ask again "
                "in a second, less often, or start another server.",
                SOON,
            )
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    async def decode(self, data: bytes) -> Picture:
        """Decodes an image file, off the event loop.

        Raises:
            Problem: what is wrong with the file.
        """
        loop = asyncio.get_running_loop()
        with self._place() as lane:
            return await loop.run_in_executor(self._decoders, lane.decoder.decode, data)

    async def answer(self, data: bytes, *, refine: int = 0) -> Answer:
        """The scene in an image file.

        Args:
            data: the file.
            refine: steps of render and compare, 0 for none.

        Raises:
            Problem: what is wrong with the file, or why the engine cannot answer now.
        """
        self._check_refine(refine)
        with self._place() as lane:
            answer = await self._answer(lane, data, alone=True)
            return await lane.refine(answer, refine) if refine else answer

    async def answers(self, files: list[bytes], *, refine: int = 0) -> list[Answer | Exception]:
        """The scenes in several image files, or what is wrong with each: mostly a Problem.

        Args:
            files: them.
            refine: steps of render and compare for each, 0 for none. One after the other, so that
                other requests have their turns between them.

        Raises:
            Problem: why the engine cannot answer now.
        """
        self._check_refine(refine)
        turn = asyncio.Lock()

        async def one(data: bytes) -> Answer | Exception:
            try:
                with _explained():
                    answer = await self._answer(lane, data)
                    if not refine:
                        return answer
                    async with turn:
                        return await lane.refine(answer, refine)
            except Exception as error:
                return error

        with self._place(len(files)) as lane:
            return await asyncio.gather(*map(one, files))

    def _check_refine(self, steps: int) -> None:
        if steps > self.settings.max_refine:
            raise Problem(
                problems.INVALID,
                f"query.refine: is {steps}; at most {self.settings.max_refine} steps are taken.",
            )

    async def run(self, work: Callable[[Any], T]) -> T:
        """Has the engine's thread do something with the engine, in its turn.

        Raises:
            Problem: the engine cannot do it now.
        """
        with self._place() as lane:
            async with asyncio.timeout(self.settings.max_seconds):
                result: T = await lane.batcher.call(work, self.settings.max_seconds)
                return result

    async def _answer(self, lane: Lane, data: bytes, *, alone: bool = False) -> Answer:
        """An answer; `alone`, it must not wait longer than others had to when it was let in."""
        deadline = time.monotonic() + self.settings.max_seconds
        job = Job(asyncio.get_running_loop().create_future(), deadline)

        def decode() -> None:
            # From here straight to the engine's thread: a detour by way of the event loop costs
            # as much as decoding a small picture.
            if job.future.cancelled():
                return
            try:
                job.item = lane.decoder.decode(data)
            except BaseException as error:
                lane.batcher.fail(job, error)
            else:
                job.created = time.perf_counter()
                if alone:
                    job.deadline = min(deadline, time.monotonic() + lane.patience)
                lane.batcher.put(job)

        self._decoders.submit(decode)
        # The batcher looks at deadlines only when it gets free, which it may never.
        async with asyncio.timeout(self.settings.max_seconds):
            answer: Answer = await job.future
            return answer

    @contextmanager
    def _place(self, pictures: int = 1) -> Iterator[Lane]:
        """Room for some pictures in the lane that answers now."""
        self.check_ready()
        self.check_room(pictures)
        lane = self._lane
        with lane.places(pictures), _explained():
            yield lane

    def _lane_of_now(self) -> Lane:
        """One for the model as it now lies in its folder."""
        return Lane(self.settings, self._load(), self.metrics, self._engines)

    def _take_over(self, lane: Lane) -> None:
        self._lane = lane
        self.metrics.served(lane.checkpoint)
        self._background(self._guard(lane))

    async def _warm_up(self, lane: Lane) -> None:
        unready = None
        try:
            await lane.warm_up()
        except Exception:
            logger.exception("the model's first inference failed")
            unready = "The model's first inference failed; the server's log tells why."
        if lane is self._lane:  # no other one was loaded meanwhile
            self._unready = unready

    async def _guard(self, lane: Lane) -> None:
        """Takes the server off duty when an engine's thread dies."""
        killer = await lane.batcher.ended()
        if killer is not None and lane is self._lane:
            logger.critical("the engine's thread died", exc_info=killer)
            self._unready = (
                "The engine has died; the server's log tells why. Reload the model (SIGHUP, or "
                "POST /admin/reload) or start the server again."
            )

    def _background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _not_able(self) -> str | None:
        """Why the engine cannot answer, in words."""
        if self._unready is None and self._lane.stalled:
            return (
                f"The engine has not answered for {self._lane.batcher.busy_seconds:.0f} seconds; "
                "start the server again if this lasts."
            )
        return self._unready

    def _not_ready(self) -> str | None:
        return "The server is about to end." if self.draining else self._not_able()


def image_problem(error: ImageError) -> Problem:
    """What is wrong with an image file, as a Problem."""
    detail = str(error)
    return Problem(_IMAGE_PROBLEMS[error.kind], f"{detail[0].upper()}{detail[1:]}.")


@contextmanager
def _explained() -> Iterator[None]:
    """Tells of what went wrong on other threads as a Problem."""
    try:
        yield
    except ImageError as error:
        raise image_problem(error) from None
    except (LateError, TimeoutError):
        raise Problem(
            problems.LATE,
            "The engine did not come to this request in time; ask again in a second, less often, "
            "or start another server.",
            SOON,
        ) from None
    except StoppedError:
        raise Problem(
            problems.NOT_READY, "The engine has stopped; the server's log tells why.", LATER
        ) from None

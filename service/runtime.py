"""The engine of a running service: what it is asked, and whether it is ready.

A lane is one engine with its thread, its queue and the decoder for its network's pictures. There is
one, but while another checkpoint is being loaded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from inference.checkpoint import Checkpoint
from service import problems
from service.batching import Batcher, Job, LateError, StoppedError
from service.engine import Answer, Engine, EngineError
from service.images import Decoder, ImageError, Picture
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


class Infers(Protocol):
    """What the application needs of an engine; all of it is called on the thread that made it."""

    checkpoint: Checkpoint

    def warm_up(self) -> None:
        """Infers once, so that what is slow once is slow now."""

    def infer_batch(self, pictures: Sequence[Picture]) -> Sequence[Answer | EngineError]:
        """The scene in each picture."""
        ...

    def close(self) -> None:
        """Frees everything."""


class Lane:
    """One engine, its thread and queue, and the decoder for its network's pictures.

    Args:
        settings: of the service.
        load: makes the engine.
    """

    def __init__(self, settings: Settings, load: Callable[[], Infers]) -> None:
        self._settings = settings
        self.batcher: Batcher[Infers, Picture, Answer] = Batcher(
            load,
            lambda engine, pictures: engine.infer_batch(pictures),
            lambda engine: engine.close(),
            largest=settings.batch_size,
            wait=settings.batch_wait,
            name="engine",
        )

    async def start(self) -> None:
        """Loads the engine."""
        engine = await self.batcher.start()
        self.checkpoint = engine.checkpoint
        self.decoder = decoder_for(engine.checkpoint, self._settings)

    async def warm_up(self) -> None:
        """Infers once."""
        await self.batcher.call(lambda engine: engine.warm_up(), float("inf"))


def decoder_for(checkpoint: Checkpoint, settings: Settings) -> Decoder:
    """Decodes pictures for a checkpoint's network, within the limits of the settings."""
    network = checkpoint.posterior.config
    return Decoder(
        network.height,
        network.width,
        checkpoint.spec.background,
        settings.max_bytes,
        settings.max_pixels,
    )


class Runtime:
    """The engine of a running application, bounded queues before it, and its life.

    Args:
        settings: of the service.
        load: makes the engine.
    """

    def __init__(self, settings: Settings, load: Callable[[], Infers]) -> None:
        self.settings, self._load = settings, load
        # A large picture takes hundreds of megabytes while it is decoded: few at a time.
        self._decoders = ThreadPoolExecutor(settings.decoders, thread_name_prefix="decoder")
        self._inside = 0
        self._unready: str | None = "The model is being loaded; ask again in a few seconds."
        self.draining = False

    async def start(self) -> None:
        """Loads the engine; its first inference runs on, and `ready` tells when it is done."""
        lane = Lane(self.settings, self._load)
        await lane.start()
        self._lane = lane
        self._unready = "The model runs its first inference; ask again in a few seconds."
        self._warming = asyncio.create_task(self._warm_up())

    async def _warm_up(self) -> None:
        try:
            await self._lane.warm_up()
        except Exception:
            logger.exception("the model's first inference failed")
            self._unready = "The model's first inference failed; the server's log tells why."
        else:
            self._unready = None

    async def stop(self) -> None:
        """Lets running work finish and frees everything."""
        await self._warming
        await self._lane.batcher.stop()
        self._decoders.shutdown()

    @property
    def checkpoint(self) -> Checkpoint:
        """The one that answers now; a reload changes it."""
        return self._lane.checkpoint

    def check_ready(self) -> None:
        """Raises a Problem unless the first inference succeeded."""
        if self._unready is not None:
            raise Problem(problems.NOT_READY, self._unready, {"Retry-After": "5"})

    def check_room(self) -> None:
        """Raises a Problem when as many requests wait for the engine as may."""
        if self._inside >= self.settings.queue_size:
            raise Problem(
                problems.BUSY,
                f"{self._inside} requests wait already, as many as may; ask again in a second, "
                "less often, or start another server.",
                {"Retry-After": "1"},
            )

    async def decode(self, data: bytes) -> Picture:
        """Decodes an image file, off the event loop.

        Raises:
            Problem: what is wrong with the file.
        """
        loop = asyncio.get_running_loop()
        with self._place(), _explained():
            return await loop.run_in_executor(self._decoders, self._lane.decoder.decode, data)

    async def answer(self, data: bytes) -> Answer:
        """The scene in an image file.

        Raises:
            Problem: what is wrong with the file, or why the engine cannot answer now.
        """
        self.check_ready()
        lane = self._lane
        with self._place(), _explained():
            job = self._job()

            def decode() -> None:
                # From here straight to the engine's thread: each detour by way of the event loop
                # costs as much as decoding a small picture.
                if job.future.cancelled():
                    return
                try:
                    job.item = lane.decoder.decode(data)
                except BaseException as error:
                    lane.batcher.fail(job, error)
                else:
                    job.created = time.perf_counter()
                    lane.batcher.put(job)

            self._decoders.submit(decode)
            return await job.future

    async def run(self, work: Callable[[Engine], T]) -> T:
        """Has the engine's thread do something, in its turn.

        Raises:
            Problem: the engine cannot do it now.
        """
        self.check_ready()
        with self._place(), _explained():
            job = self._job(call=work)
            self._lane.batcher.put(job)
            return await job.future

    def _job(self, call: Callable[[Any], Any] | None = None) -> Job:
        deadline = time.monotonic() + self.settings.max_seconds
        return Job(asyncio.get_running_loop().create_future(), deadline, call=call)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places in which requests wait for the engine and its answer."""
        self.check_room()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


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
    except LateError:
        raise Problem(
            problems.LATE,
            "The engine had no time for this request; ask again in a second, less often, or "
            "start another server.",
            {"Retry-After": "1"},
        ) from None
    except StoppedError:
        raise Problem(
            problems.NOT_READY,
            "The engine has stopped; the server's log tells why.",
            {"Retry-After": "5"},
        ) from None

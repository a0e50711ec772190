"""The engine of a running service: the one thread on which it works, and whether it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import anyio

from inference.checkpoint import Checkpoint
from service import problems
from service.engine import Answer
from service.images import Decoder, ImageError, Picture
from service.problems import Problem, logger
from service.settings import Settings

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

    def infer(self, picture: Picture) -> Answer:
        """The scene in a picture."""
        ...

    def close(self) -> None:
        """Frees everything."""


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
    """The engine of a running application, and the one thread on which it works.

    Args:
        settings: of the service.
        load: makes the engine.
    """

    def __init__(self, settings: Settings, load: Callable[[], Infers]) -> None:
        self._settings, self._load = settings, load
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        # A large picture takes hundreds of megabytes while it is decoded: few at a time.
        self._decoders = anyio.CapacityLimiter(settings.threads)
        self._unready = "The model is being loaded; ask again in a few seconds."
        self.ready = False

    async def start(self) -> None:
        """Loads the engine; its first inference runs on, and `ready` tells when it is done."""
        loop = asyncio.get_running_loop()
        try:
            self.engine = await loop.run_in_executor(self._worker, self._load)
        except BaseException:
            self._worker.shutdown()
            raise
        self.decoder = decoder_for(self.engine.checkpoint, self._settings)
        self._unready = "The model runs its first inference; ask again in a few seconds."
        self._warming = asyncio.create_task(self._warm_up())

    async def _warm_up(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._worker, self.engine.warm_up)
        except Exception:
            logger.exception("the model's first inference failed")
            self._unready = "The model's first inference failed; the server's log tells why."
        else:
            self.ready = True

    async def stop(self) -> None:
        """Lets running work finish and frees everything."""
        await self._warming
        await asyncio.get_running_loop().run_in_executor(self._worker, self.engine.close)
        self._worker.shutdown()

    def check_ready(self) -> None:
        """Raises a Problem unless the first inference succeeded."""
        if not self.ready:
            raise Problem(problems.NOT_READY, self._unready, {"Retry-After": "5"})

    async def decode(self, data: bytes) -> Picture:
        """Decodes an image file, off the event loop."""
        decode = partial(self.decoder.decode, data)
        try:
            return await anyio.to_thread.run_sync(decode, limiter=self._decoders)
        except ImageError as error:
            detail = str(error)
            raise Problem(
                _IMAGE_PROBLEMS[error.kind], f"{detail[0].upper()}{detail[1:]}."
            ) from None

    async def infer(self, picture: Picture) -> Answer:
        """Infers a picture's scene, on the engine's thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self.engine.infer, picture)

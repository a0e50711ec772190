"""Engines of one model with their threads, their queue and the decoder for its pictures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from inference.checkpoint import Checkpoint
from inference.checkpoint2d import Checkpoint2d
from inference.images import Decoder, Picture
from service.batching import Batcher
from service.engine import Answer, EngineError
from service.engine_process import EngineProcess
from service.metrics import Metrics
from service.settings import Settings

RECENT = 0.2  # weight of the last batch in how long a picture takes
POLL = 0.02  # s, between two looks at whether a lane is empty


class Infers(Protocol):
    """What the application needs of an engine; all of it is called on the thread that made it."""

    checkpoint: Checkpoint

    def warm_up(self) -> None:
        """Infers once, so that what is slow once is slow now."""

    def infer_batch(self, pictures: Sequence[Picture]) -> Sequence[Answer | EngineError]:
        """The scene in each picture."""
        ...

    def refine(self, answer: Answer, steps: int, seconds: float) -> Answer:
        """The answer after render and compare, within so many seconds."""
        ...

    def close(self) -> None:
        """Frees everything."""


class Lane:
    """The engines of one model, from its loading to its end.

    There is one lane, but while a reload brings up the next.

    Args:
        settings: of the service.
        load: makes an engine of the model, as often as it is called.
        metrics: that measure it.
        engines: how many.
    """

    def __init__(
        self, settings: Settings, load: Callable[[], Infers], metrics: Metrics, engines: int
    ) -> None:
        self._settings, self._metrics, self._engines = settings, metrics, engines
        self._made: list[Infers] = []
        self.inside = 0  # pictures that wait for their answers
        self._pace = 0.0  # s that a picture took lately, in batches that are at least half full
        self._refining = 0  # answers that wait to be refined
        self._refine_pace = 0.0  # s that one took lately
        self.batcher: Batcher[Infers, Picture, Answer] = Batcher(
            load,
            self._infer,
            lambda engine: engine.close(),
            largest=settings.batch_size,
            threads=engines,
            wait=settings.batch_wait,
            observe=metrics.waited,
            name="engine",
        )

    async def start(self) -> None:
        """Loads the engines."""
        self._made = await self.batcher.start()
        engine = self._made[0]
        self.checkpoint = engine.checkpoint
        self.decoder = decoder_for(engine.checkpoint, self._settings)

    async def warm_up(self) -> None:
        """Infers once with each engine."""
        await self.batcher.call_all(lambda engine: engine.warm_up())

    async def stop(self) -> None:
        """Lets what is inside finish, and frees the engines, within `drain_seconds`."""
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                while self.inside:
                    await asyncio.sleep(POLL)
                await self.batcher.stop()
        except TimeoutError:
            # An engine hangs. In a process of its own it can be ended, otherwise its thread stays
            # until our process ends.
            for engine in self._made:
                if isinstance(engine, EngineProcess):
                    engine.kill()
            await self.batcher.stop(0.0)

    @property
    def stalled(self) -> bool:
        """Whether an engine has been at one batch for so long that it will hardly end."""
        return self.batcher.busy_seconds > self._settings.stall_seconds

    @property
    def waiting_seconds(self) -> float:
        """How long the next picture will wait, as far as can be told; 0 for the next batch."""
        waits = self.inside > self._settings.batch_size * self._engines
        inferring = self._pace * self.inside if waits else 0.0
        return (inferring + self._refine_pace * self._refining) / self._engines

    @property
    def patience(self) -> float:
        """How long a picture may wait, s: longer than was to be expected when it was let in.

        The machine has other things to do, then, and whoever asked should send the next picture.
        """
        batch = self._pace * self._settings.batch_size
        refining = self._settings.refine_seconds if self._refining else 0.0
        return 2 * max(self._settings.queue_seconds, batch) + refining

    async def refine(self, answer: Answer, steps: int) -> Answer:
        """The answer after render and compare, on an engine's thread, in its turn.

        Raises:
            LateError, StoppedError: as `Batcher.call`.
        """
        settings = self._settings

        def work(engine: Infers) -> Answer:
            began = time.perf_counter()
            refined = engine.refine(answer, steps, settings.refine_seconds)
            spent = time.perf_counter() - began
            pace = self._refine_pace
            self._refine_pace += RECENT * (spent - pace) if pace else spent
            return refined

        self._refining += 1
        try:
            async with asyncio.timeout(settings.max_seconds):
                found: Answer = await self.batcher.call(work, settings.max_seconds)
                return found
        finally:
            self._refining -= 1

    @contextmanager
    def places(self, number: int) -> Iterator[None]:
        """Holds places for pictures that wait for their answers."""
        self.inside += number
        try:
            yield
        finally:
            self.inside -= number

    def _infer(self, engine: Infers, pictures: list[Picture]) -> Sequence[Answer | EngineError]:
        began = time.perf_counter()
        answers = engine.infer_batch(pictures)
        # Of small batches each picture takes longer, but those are none that many wait for.
        if 2 * len(pictures) >= self._settings.batch_size:
            pace = (time.perf_counter() - began) / len(pictures)
            self._pace += RECENT * (pace - self._pace) if self._pace else pace
        self._metrics.worked(answers)
        return answers


def decoder_for(checkpoint: Checkpoint | Checkpoint2d, settings: Settings) -> Decoder:
    """Decodes pictures for a checkpoint's network, within the limits of the settings."""
    if isinstance(checkpoint, Checkpoint2d):
        side = checkpoint.model.config.side
        return Decoder(side, side, max_bytes=settings.max_bytes, max_pixels=settings.max_pixels)
    network = checkpoint.posterior.config
    return Decoder(
        network.height,
        network.width,
        checkpoint.spec.background,
        settings.max_bytes,
        settings.max_pixels,
    )

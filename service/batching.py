"""Work of many tasks done in batches on one thread: what is waiting when the thread gets free.

An OpenGL context belongs to the thread that made it, and a network reads eight pictures in much
less than eight times the time of one. So one thread makes a worker, hands it all items that wait,
and closes it in the end. It knows neither tensors nor HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Worker = TypeVar("Worker")

logger = logging.getLogger("airscene")


class LateError(Exception):
    """A job's deadline passed before its turn came."""


class StoppedError(Exception):
    """The thread has ended, and nothing is worked on any more."""


@dataclass(eq=False, slots=True)
class Job:
    """Something to be done, and the future that waits for it.

    A job whose future was cancelled, because nobody waits any more, is dropped.
    """

    future: asyncio.Future[Any]
    deadline: float  # of `time.monotonic`
    item: Any = None
    call: Callable[[Any], Any] | None = None  # of the worker, instead of an item
    created: float = field(default_factory=time.perf_counter)


class Batcher(Generic[Worker, Item, Result]):
    """One thread, its worker, and the jobs that wait for it.

    Args:
        make: the worker, on the thread.
        work: on a batch; gives a result or an exception for each item, in order.
        close: the worker, on the thread.
        largest: batch.
        wait: s, for which a batch that is not full waits for more items.
        observe: is told on the thread, before each batch, how long each item waited, s.
        name: of the thread.
    """

    def __init__(
        self,
        make: Callable[[], Worker],
        work: Callable[[Worker, list[Item]], Sequence[Result | Exception]],
        close: Callable[[Worker], None],
        *,
        largest: int,
        wait: float = 0.0,
        observe: Callable[[list[float]], None] | None = None,
        name: str = "worker",
    ) -> None:
        self._make, self._work, self._close = make, work, close
        self._largest, self._wait, self._observe = largest, wait, observe
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = self._ended = False
        self._busy_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._made: asyncio.Future[Worker] = self._loop.create_future()
        self._finished: asyncio.Future[BaseException | None] = self._loop.create_future()
        # A thread that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def start(self) -> Worker:
        """Starts the thread and waits for its worker; raises what making it raised."""
        self._thread.start()
        return await self._made

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        return len(self._queue)

    @property
    def alive(self) -> bool:
        """Whether jobs will be worked on."""
        return not self._ended

    @property
    def busy_seconds(self) -> float:
        """For how long the thread has been at its present batch; 0 when it waits."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def put(self, job: Job) -> None:
        """Queues a job, from any thread; its future gets the result, an exception or nothing.

        The future fails with LateError or StoppedError when the job is not begun.
        """
        with self._changed:
            if not self._ended:
                self._queue.append(job)
                self._changed.notify()
                return
        self._deliver([(job, StoppedError())])

    def fail(self, job: Job, error: BaseException) -> None:
        """Ends a job with an exception, from any thread."""
        self._deliver([(job, error)])

    async def call(self, call: Callable[[Worker], Any], seconds: float) -> Any:
        """Has the thread call something with the worker, in its turn.

        Raises:
            LateError: its turn did not come within `seconds`.
            StoppedError: it will never come.
        """
        job = Job(self._loop.create_future(), time.monotonic() + seconds, call=call)
        self.put(job)
        return await job.future

    async def stop(self, seconds: float | None = None) -> None:
        """Lets the thread finish what waits, closes the worker, and returns.

        Args:
            seconds: how long to wait for that; for ever when not given.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.wait({self._finished}, timeout=seconds)

    async def ended(self) -> BaseException | None:
        """Waits for the thread's end; what killed it, or None when it was stopped."""
        return await asyncio.shield(self._finished)

    def _run(self) -> None:
        try:
            worker = self._make()
        except BaseException as error:
            self._finish(None)
            self._tell(_fail, self._made, error)
            return
        self._tell(_succeed, self._made, worker)
        killer: BaseException | None = None
        batch: list[Job] = []
        try:
            while batch := self._take():
                self._busy_since = time.monotonic()
                self._deliver(self._do(worker, batch))
                self._busy_since = None
            self._close(worker)
        except BaseException as error:
            killer = error
            self._deliver([(job, StoppedError()) for job in batch])
        finally:
            self._busy_since = None
            self._finish(killer)

    def _finish(self, killer: BaseException | None) -> None:
        with self._changed:
            self._ended = True
            left = list(self._queue)
            self._queue.clear()
        self._deliver([(job, StoppedError()) for job in left])
        self._tell(_succeed, self._finished, killer)

    def _take(self) -> list[Job]:
        """The next batch: one call, or items that lie side by side; empty when all is done."""
        batch: list[Job] = []
        until = 0.0
        with self._changed:
            while len(batch) < self._largest:
                if self._queue:
                    if batch and self._queue[0].call is not None:
                        break
                    job = self._queue.popleft()
                    if self._drop(job):
                        continue
                    batch.append(job)
                    if job.call is not None:
                        break
                    until = until or time.monotonic() + self._wait
                elif batch:
                    left = until - time.monotonic()
                    if left <= 0.0 or self._closing:
                        break
                    self._changed.wait(left)
                elif self._closing:
                    break
                else:
                    self._changed.wait()
        return batch

    def _drop(self, job: Job) -> bool:
        """Whether nobody waits for a job any more, or it comes too late, which it is told."""
        late = job.deadline < time.monotonic()
        if late:
            self._deliver([(job, LateError())])
        return late or job.future.cancelled()

    def _do(self, worker: Worker, batch: list[Job]) -> list[tuple[Job, Any]]:
        first = batch[0]
        if first.call is not None:
            try:
                return [(first, first.call(worker))]
            except Exception as error:
                return [(first, error)]
        if self._observe is not None:
            now = time.perf_counter()
            self._observe([now - job.created for job in batch])
        return list(zip(batch, self._results(worker, batch), strict=True))

    def _results(self, worker: Worker, batch: list[Job]) -> Sequence[Result | Exception]:
        try:
            return self._work(worker, [job.item for job in batch])
        except Exception as error:
            if len(batch) == 1:
                return [error]
            # One of them is to blame; the others shall not suffer from it.
            logger.warning("a batch of %d failed (%s); one by one", len(batch), error)
            return [result for job in batch for result in self._results(worker, [job])]

    def _deliver(self, results: Sequence[tuple[Job, Any]]) -> None:
        if results:
            self._tell(_settle, results)

    def _tell(self, call: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed: nobody listens any more
            logger.debug("the event loop ended before the thread %s", self._thread.name)


def _settle(results: Sequence[tuple[Job, Any]]) -> None:
    for job, result in results:
        if isinstance(result, BaseException):
            _fail(job.future, result)
        else:
            _succeed(job.future, result)


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        # A future cannot hold that one, and would never end.
        future.set_exception(RuntimeError() if isinstance(error, StopIteration) else error)

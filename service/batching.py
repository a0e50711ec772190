"""Work of many tasks done in batches on few threads: what is waiting when one of them gets free.

An OpenGL context belongs to the thread that made it, and a network reads eight pictures in much
less than eight times the time of one. So a thread makes a worker, hands it all items that wait,
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
    """The threads have ended, and nothing is worked on any more."""


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
    """Some threads, a worker of each, and the jobs that wait for them.

    When something kills one of the threads, the others end too.

    Args:
        make: a worker, on its thread.
        work: on a batch; gives a result or an exception for each item, in order.
        close: a worker, on its thread.
        largest: batch.
        threads: how many.
        wait: s, for which a batch that is not full waits for more items.
        observe: is told on a thread, before each batch, how long each item waited, s.
        name: of the threads.
    """

    def __init__(
        self,
        make: Callable[[], Worker],
        work: Callable[[Worker, list[Item]], Sequence[Result | Exception]],
        close: Callable[[Worker], None],
        *,
        largest: int,
        threads: int = 1,
        wait: float = 0.0,
        observe: Callable[[list[float]], None] | None = None,
        name: str = "worker",
    ) -> None:
        self._make, self._work, self._close = make, work, close
        self._largest, self._wait, self._observe = largest, wait, observe
        self._queue: deque[Job] = deque()
        self._own: list[deque[Job]] = [deque() for _ in range(threads)]  # for one thread alone
        self._lock = threading.Lock()
        self._wakes = [threading.Condition(self._lock) for _ in range(threads)]
        # Threads that wait. The last to have worked is woken first: what it needs is still in the
        # processor's caches, where others would have to fetch theirs.
        self._waiting: list[int] = []
        self._closing = self._ended = False
        self._running = threads
        self._busy_since: list[float | None] = [None] * threads
        self._loop = asyncio.get_running_loop()
        self._made: list[asyncio.Future[Worker]] = [
            self._loop.create_future() for _ in range(threads)
        ]
        self._finished: asyncio.Future[BaseException | None] = self._loop.create_future()
        # A thread that hangs must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._run, args=(i,), name=f"{name}-{i}", daemon=True)
            for i in range(threads)
        ]

    async def start(self) -> list[Worker]:
        """Starts the threads and waits for their workers; raises what making one raised."""
        for thread in self._threads:
            thread.start()
        return await asyncio.gather(*self._made)

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
        """For how long the slowest thread has been at its present batch; 0 when all wait."""
        began = [since for since in self._busy_since if since is not None]
        return time.monotonic() - min(began) if began else 0.0

    def put(self, job: Job) -> None:
        """Queues a job, from any thread; its future gets the result, an exception or nothing.

        The future fails with LateError or StoppedError when the job is not begun.
        """
        with self._lock:
            if not self._ended:
                self._queue.append(job)
                if self._waiting:
                    self._wakes[self._waiting.pop()].notify()
                return
        self._deliver([(job, StoppedError())])

    def fail(self, job: Job, error: BaseException) -> None:
        """Ends a job with an exception, from any thread."""
        self._deliver([(job, error)])

    async def call(self, call: Callable[[Worker], Any], seconds: float) -> Any:
        """Has a thread call something with its worker, in its turn.

        Raises:
            LateError: its turn did not come within `seconds`.
            StoppedError: it will never come.
        """
        job = Job(self._loop.create_future(), time.monotonic() + seconds, call=call)
        self.put(job)
        return await job.future

    async def call_all(self, call: Callable[[Worker], Any]) -> None:
        """Has each thread call something with its worker, before anything else that waits.

        Raises:
            StoppedError: that will never be.
            Exception: what a call raised.
        """
        jobs = [
            Job(self._loop.create_future(), float("inf"), call=call) for _ in range(len(self._own))
        ]
        with self._lock:
            ended = self._ended
            if not ended:
                for own, job in zip(self._own, jobs, strict=True):
                    own.append(job)
                self._wake_all()
        if ended:
            raise StoppedError
        await asyncio.gather(*(job.future for job in jobs))

    async def stop(self, seconds: float | None = None) -> None:
        """Lets the threads finish what waits, closes the workers, and returns.

        Args:
            seconds: how long to wait for that; for ever when not given.
        """
        with self._lock:
            self._closing = True
            self._wake_all()
        await asyncio.wait({self._finished}, timeout=seconds)

    async def ended(self) -> BaseException | None:
        """Waits for the end; what killed a thread, or None when all were stopped."""
        return await asyncio.shield(self._finished)

    def _run(self, i: int) -> None:
        try:
            worker = self._make()
        except BaseException as error:
            self._finish(None)
            self._tell(_fail, self._made[i], error)
            return
        self._tell(_succeed, self._made[i], worker)
        killer: BaseException | None = None
        batch: list[Job] = []
        try:
            while batch := self._take(i):
                self._busy_since[i] = time.monotonic()
                self._deliver(self._do(worker, batch))
                self._busy_since[i] = None
            self._close(worker)
        except BaseException as error:
            killer = error
            self._deliver([(job, StoppedError()) for job in batch])
        finally:
            self._busy_since[i] = None
            self._finish(killer)

    def _finish(self, killer: BaseException | None) -> None:
        """A thread ends, and with it, sooner or later, all."""
        with self._lock:
            self._ended = True
            left = [job for queue in (self._queue, *self._own) for job in queue]
            for queue in (self._queue, *self._own):
                queue.clear()
            self._running -= 1
            last = not self._running
            self._wake_all()
        self._deliver([(job, StoppedError()) for job in left])
        if last or killer is not None:
            self._tell(_succeed, self._finished, killer)

    def _wake_all(self) -> None:
        for wake in self._wakes:
            wake.notify()

    def _wait_for_more(self, i: int, seconds: float | None = None) -> None:
        """Has a thread wait until something changes, with the lock held before and afterwards."""
        self._waiting.append(i)
        self._wakes[i].wait(seconds)
        if i in self._waiting:  # woken by something else than an item, or by nothing
            self._waiting.remove(i)

    def _take(self, i: int) -> list[Job]:
        """A thread's next batch: one call, or items that lie side by side; empty when all is done.

        Calls for this thread alone come first.
        """
        own = self._own[i]
        batch: list[Job] = []
        until = 0.0
        with self._lock:
            while len(batch) < self._largest:
                if own and not batch:
                    return [own.popleft()]
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
                    self._wait_for_more(i, left)
                elif self._closing or self._ended:
                    break
                else:
                    self._wait_for_more(i)
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
            logger.debug("the event loop ended before %s", threading.current_thread().name)


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

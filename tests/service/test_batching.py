import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.batching import Batcher, Job, LateError, StoppedError

Numbers = Batcher[str, int, int]


class Work:
    """Doubles numbers, when the gate is open; -1 has no double, and -2 spoils its whole batch."""

    def __init__(self) -> None:
        self.gate, self.batches = threading.Event(), list[list[int]]()
        self.closed: list[str] = []
        self.waited: list[float] = []

    def batcher(self, **options: Any) -> Numbers:
        return Batcher(lambda: "worker", self, self.closed.append, **{"largest": 4, **options})

    def __call__(self, worker: str, items: list[int]) -> list[int | Exception]:
        assert worker == "worker"
        assert self.gate.wait(30)
        self.batches.append(items)
        if -2 in items:
            raise ArithmeticError("spoilt")
        return [ValueError("none") if item == -1 else 2 * item for item in items]


def put(batcher: Numbers, item: int, seconds: float = 30) -> "asyncio.Future[int]":
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    batcher.put(Job(future, time.monotonic() + seconds, item))
    return future


async def taken(batcher: Numbers) -> None:
    """Until the thread is at work and nothing waits."""
    while batcher.depth or not batcher.busy_seconds:
        await asyncio.sleep(0.001)


def run(test: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def test_what_waits_is_one_batch() -> None:
    work = Work()

    async def scenario() -> None:
        batcher = work.batcher(observe=work.waited.extend)
        assert await batcher.start() == ["worker"]
        first = put(batcher, 0)
        await taken(batcher)
        rest = [put(batcher, item) for item in range(1, 8)]
        assert batcher.depth == 7
        work.gate.set()
        assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10, 12, 14]
        await batcher.stop()
        assert await batcher.ended() is None

    run(scenario)
    assert work.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]
    assert len(work.waited) == 8
    assert min(work.waited) >= 0
    assert work.closed == ["worker"]


def test_a_short_wait_fills_a_batch() -> None:
    work = Work()
    work.gate.set()

    async def scenario() -> None:
        batcher = work.batcher(wait=30.0)
        await batcher.start()
        futures = [put(batcher, 1)]
        for item in (2, 3, 4):
            await asyncio.sleep(0.01)
            futures.append(put(batcher, item))
        assert await asyncio.gather(*futures) == [2, 4, 6, 8]
        # A batch that is not full is not waited for when all shall end.
        last = put(batcher, 5)
        await batcher.stop()
        assert await last == 10

    run(scenario)
    assert work.batches == [[1, 2, 3, 4], [5]]


def test_a_bad_item_fails_alone() -> None:
    work = Work()

    async def scenario() -> None:
        batcher = work.batcher()
        await batcher.start()
        first = put(batcher, 0)
        await taken(batcher)
        futures = [first, *(put(batcher, item) for item in (1, -1, 2, 3, -2, 4))]
        work.gate.set()
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [r for r in results if isinstance(r, int)] == [0, 2, 4, 6, 8]
        assert isinstance(results[2], ValueError)
        assert isinstance(results[5], ArithmeticError)
        await batcher.stop()

    run(scenario)
    assert work.batches[:2] == [[0], [1, -1, 2, 3]]
    assert work.batches[2:] == [[-2, 4], [-2], [4]]  # one by one after the batch failed


def test_nobody_works_for_those_who_left_or_came_too_late() -> None:
    work = Work()

    async def scenario() -> None:
        batcher = work.batcher()
        await batcher.start()
        first = put(batcher, 0)
        await taken(batcher)
        left, late, stays = put(batcher, 1), put(batcher, 2, seconds=0.0), put(batcher, 3)
        left.cancel()
        work.gate.set()
        assert await stays == 6
        with pytest.raises(LateError):
            await late
        assert await first == 0
        await batcher.stop()

    run(scenario)
    assert work.batches == [[0], [3]]


def test_calls_keep_their_turn() -> None:
    work = Work()
    order: list[object] = []

    async def scenario() -> None:
        batcher = work.batcher()
        await batcher.start()
        first = put(batcher, 0)
        await taken(batcher)
        before = put(batcher, 1)
        call = asyncio.ensure_future(batcher.call(lambda worker: list(work.batches), 30))
        await asyncio.sleep(0)
        after = put(batcher, 2)
        work.gate.set()
        order.append(await call)
        await asyncio.gather(first, before, after)
        with pytest.raises(ZeroDivisionError):
            await batcher.call(lambda worker: 1 / 0, 30)
        assert batcher.alive
        await batcher.stop()

    run(scenario)
    assert order == [[[0], [1]]]
    assert work.batches == [[0], [1], [2]]


def test_what_waits_is_finished_before_the_end() -> None:
    work = Work()

    async def scenario() -> None:
        batcher = work.batcher()
        await batcher.start()
        futures = [put(batcher, item) for item in range(20)]
        stopping = asyncio.ensure_future(batcher.stop())
        await asyncio.sleep(0.01)
        work.gate.set()
        await stopping
        assert await asyncio.gather(*futures) == [2 * item for item in range(20)]
        assert not batcher.alive
        with pytest.raises(StoppedError):
            await put(batcher, 1)

    run(scenario)
    assert work.closed == ["worker"]


def test_a_dead_thread_leaves_nobody_waiting() -> None:
    work = Work()

    async def scenario() -> None:
        batcher = work.batcher()
        await batcher.start()
        first = put(batcher, 0)
        await taken(batcher)
        second = put(batcher, 1)

        def die(worker: str) -> None:
            raise SystemExit("killed")

        third = asyncio.ensure_future(batcher.call(die, 30))
        await asyncio.sleep(0)
        fourth = put(batcher, 2)
        work.gate.set()
        assert (await first, await second) == (0, 2)
        for future in (third, fourth, put(batcher, 3)):
            with pytest.raises(StoppedError):
                await future
        assert isinstance(await batcher.ended(), SystemExit)
        assert not batcher.alive and not batcher.busy_seconds

    run(scenario)


def test_several_threads_share_what_waits() -> None:
    work = Work()

    async def scenario() -> None:
        batcher = work.batcher(threads=2)
        assert await batcher.start() == ["worker", "worker"]
        both, called = threading.Barrier(2), list[str]()

        def call(worker: str) -> None:
            both.wait(30)  # until two threads are here
            called.append(threading.current_thread().name)

        await batcher.call_all(call)
        assert sorted(called) == ["worker-0", "worker-1"]
        first, second = put(batcher, 0), put(batcher, 1)
        await taken(batcher)
        rest = [put(batcher, item) for item in range(2, 8)]
        stopping = asyncio.ensure_future(batcher.stop())
        work.gate.set()
        assert await asyncio.gather(first, second, *rest) == [0, 2, 4, 6, 8, 10, 12, 14]
        await stopping
        assert await batcher.ended() is None and not batcher.alive
        with pytest.raises(StoppedError):
            await batcher.call_all(call)

    run(scenario)
    assert sorted(item for batch in work.batches for item in batch) == list(range(8))
    assert work.closed == ["worker", "worker"]


def test_whoever_worked_last_works_next() -> None:
    """Its caches are warm: a lone picture after another is not for all threads in turn."""
    names: list[str] = []

    def work(worker: str, items: list[int]) -> list[int]:
        names.append(threading.current_thread().name)
        return items

    async def scenario() -> None:
        batcher: Numbers = Batcher(lambda: "", work, lambda _: None, largest=4, threads=3)
        await batcher.start()
        for item in range(8):
            while len(batcher._waiting) < 3:  # until all wait
                await asyncio.sleep(0.001)
            assert await put(batcher, item) == item
        await batcher.stop()

    run(scenario)
    assert len(names) == 8 and len(set(names)) == 1


def test_when_one_thread_dies_all_end() -> None:
    work = Work()

    async def scenario() -> None:
        batcher = work.batcher(threads=2)
        await batcher.start()

        def die(worker: str) -> None:
            raise SystemExit("killed")

        first = put(batcher, 0)
        await taken(batcher)
        with pytest.raises(StoppedError):
            await batcher.call(die, 30)
        assert isinstance(await batcher.ended(), SystemExit)
        assert not batcher.alive
        # The other finishes what it is at.
        work.gate.set()
        assert await first == 0
        await batcher.stop(10)

    run(scenario)


def test_a_worker_that_cannot_be_made() -> None:
    async def scenario() -> None:
        def make() -> str:
            raise OSError("no device")

        batcher: Numbers = Batcher(make, Work(), lambda worker: None, largest=4)
        with pytest.raises(OSError, match="no device"):
            await batcher.start()
        await batcher.stop()
        with pytest.raises(StoppedError):
            await put(batcher, 1)

    run(scenario)


def test_a_thread_that_hangs_is_not_waited_for() -> None:
    work = Work()

    async def scenario() -> None:
        batcher = work.batcher()
        await batcher.start()
        put(batcher, 0)
        await taken(batcher)
        await batcher.stop(0.01)
        assert batcher.busy_seconds > 0

    run(scenario)
    work.gate.set()

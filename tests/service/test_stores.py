"""The stores of cameras: memory and a real Redis keep the same promises."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from service.cameras import redis_store
from service.cameras.choice import choose_store
from service.cameras.memory_store import MemoryStore
from service.cameras.redis_store import RedisStore
from service.cameras.store import FullError, Outcome, Record, Store, Ticket, UnavailableError
from service.settings import Settings, SettingsError

Open = Callable[..., AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


@pytest.fixture(params=["memory", "redis"])
def open_store(request: pytest.FixtureRequest) -> Open:
    if request.param == "memory":
        return lambda most=8, expiry=60.0: opened(MemoryStore(most=most, expiry=expiry))
    url = request.getfixturevalue("redis_server").url
    return lambda most=8, expiry=60.0: opened(RedisStore(url, most=most, expiry=expiry))


def record(ticket: Ticket, scene: str = "{}") -> Record:
    return Record(
        name=ticket.name,
        epoch=ticket.epoch,
        frame=ticket.frame,
        scene=scene,
        objects=0,
        stamp="2026-01-01T00:00:00.000Z",
        next_id=0,
    )


def run(test: Callable[[], Any]) -> None:
    asyncio.run(test())


def test_reads_what_was_written(open_store: Open) -> None:
    async def test() -> None:
        async with open_store() as store:
            assert await store.read("front") is None
            ticket = await store.open("front")
            assert await store.read("front") is None
            written = record(ticket, '{"text": "ä \\u0000 \\n"}')
            assert await store.write(written, after=0) is Outcome.WRITTEN
            assert await store.read("front") == await store.latest("front") == written
            assert await store.all() == [written]
            assert await store.read("back") is None

    run(test)


def test_frames_count_and_later_ones_win(open_store: Open) -> None:
    async def test() -> None:
        async with open_store() as store:
            first, second, third = [await store.open("front") for _ in range(3)]
            assert [each.frame for each in (first, second, third)] == [1, 2, 3]
            assert await store.write(record(second), after=0) is Outcome.WRITTEN
            assert await store.write(record(first), after=0) is Outcome.OVERTAKEN
            assert await store.write(record(second), after=2) is Outcome.OVERTAKEN
            # It was made to follow nothing, but there is a record by now.
            assert await store.write(record(third), after=0) is Outcome.CHANGED
            assert await store.write(record(third), after=2) is Outcome.WRITTEN
            assert (await store.open("back")).frame == 1

    run(test)


def test_a_deleted_camera_has_another_life(open_store: Open) -> None:
    async def test() -> None:
        async with open_store() as store:
            ticket = await store.open("front")
            await store.write(record(ticket), after=0)
            late = await store.open("front")
            assert await store.delete("front")
            assert not await store.delete("front")
            assert await store.read("front") is None
            assert await store.all() == []
            assert await store.write(record(late), after=1) is Outcome.GONE
            again = await store.open("front")
            assert again.frame == 1
            assert again.epoch != ticket.epoch

    run(test)


def test_so_many_cameras_and_no_more(open_store: Open) -> None:
    async def test() -> None:
        async with open_store(most=2) as store:
            for name in ("b", "a"):
                assert await store.write(record(await store.open(name)), after=0)
            with pytest.raises(FullError):
                await store.open("c")
            assert (await store.open("a")).frame == 2  # a known one is always welcome
            assert [each.name for each in await store.all()] == ["a", "b"]
            await store.delete("b")
            await store.open("c")

    run(test)


def test_a_camera_without_frames_is_forgotten(open_store: Open) -> None:
    async def test() -> None:
        async with open_store(most=1, expiry=0.5) as store:
            await store.write(record(await store.open("old")), after=0)
            assert await store.read("old") is not None
            await asyncio.sleep(0.3)
            await store.open("old")  # a frame arrives
            await asyncio.sleep(0.3)
            assert await store.latest("old") is not None
            await asyncio.sleep(0.4)
            assert await store.read("old") is None
            assert await store.all() == []
            assert (await store.open("new")).frame == 1

    run(test)


def test_whoever_listens_is_woken(open_store: Open) -> None:
    async def test() -> None:
        async with open_store() as store:
            with store.signals.listen("front") as front, store.signals.listen("back") as back:
                await asyncio.sleep(0.2)  # Redis is being connected to, which wakes all
                front.clear()
                back.clear()
                await store.write(record(await store.open("front")), after=0)
                await asyncio.wait_for(front.wait(), 5)
                assert not back.is_set()
                front.clear()
                await store.delete("front")
                await asyncio.wait_for(front.wait(), 5)

    run(test)


def test_many_writers_lose_nothing(open_store: Open) -> None:
    """Each follows what it read: nobody's record is made of an outdated one."""

    async def test() -> None:
        async with open_store() as store:
            lost = 0

            async def write() -> None:
                nonlocal lost
                ticket = await store.open("front")
                while True:
                    latest = await store.latest("front")
                    number = int(latest.scene) if latest is not None else 0
                    new = record(ticket, str(number + 1))
                    after = latest.frame if latest is not None else 0
                    match await store.write(new, after=after):
                        case Outcome.WRITTEN:
                            return
                        case Outcome.OVERTAKEN:
                            lost += 1
                            return

            await asyncio.gather(*(write() for _ in range(30)))
            latest = await store.latest("front")
            assert latest is not None
            assert int(latest.scene) == 30 - lost

    run(test)


# --- Redis alone ------------------------------------------------------------------------------


def test_replicas_share_their_cameras(redis_server: Any) -> None:
    async def test() -> None:
        one = opened(RedisStore(redis_server.url, most=4, expiry=60.0))
        other = opened(RedisStore(redis_server.url, most=4, expiry=60.0))
        async with one as here, other as there:
            for number in range(1, 20):
                with there.signals.listen("front") as changed:
                    # Read, so that the other replica has a mirror which must not stay.
                    before = await there.read("front")
                    assert (before.frame if before else 0) == number - 1
                    changed.clear()
                    ticket = await here.open("front")
                    assert ticket.frame == number
                    await here.write(record(ticket), after=number - 1)
                    await asyncio.wait_for(changed.wait(), 5)
            await there.delete("front")
            assert await here.latest("front") is None

    run(test)


def test_pollers_cost_redis_nothing(redis_server: Any) -> None:
    async def test() -> None:
        async with opened(RedisStore(redis_server.url, most=4, expiry=60.0)) as store:
            await store.write(record(await store.open("front")), after=0)
            await asyncio.sleep(0.3)  # until it listens to changes
            await store.read("front")
            before = await store._redis.info("stats")  # type: ignore[attr-defined]
            for _ in range(500):
                await store.read("front")
            after = await store._redis.info("stats")  # type: ignore[attr-defined]
            commands = after["total_commands_processed"] - before["total_commands_processed"]
            assert commands < 10

    run(test)


@pytest.mark.parametrize("how", ["stops", "hangs"])
def test_without_redis_the_store_is_unavailable_and_recovers(
    redis_server: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "TIMEOUT", 0.4)
    monkeypatch.setattr(redis_store, "PING", 0.2)

    async def test() -> None:
        async with opened(RedisStore(redis_server.url, most=4, expiry=60.0)) as store:
            await store.write(record(await store.open("front")), after=0)
            await asyncio.sleep(0.3)
            assert await store.read("front") is not None
            with store.signals.listen("front") as changed:
                changed.clear()
                (redis_server.stop if how == "stops" else redis_server.pause)()
                # Whoever waits is told, within the time in which a silent connection is noticed.
                await asyncio.wait_for(changed.wait(), 20)
            for work in (store.read("front"), store.open("front"), store.all()):
                with pytest.raises(UnavailableError):
                    await work
            (redis_server.start if how == "stops" else redis_server.resume)()
            async with asyncio.timeout(20):
                while True:
                    try:
                        ticket = await store.open("front")
                        break
                    except UnavailableError:
                        await asyncio.sleep(0.1)
            # A Redis that was started anew has forgotten everything; one that hung has not.
            assert ticket.frame == (1 if how == "stops" else 2)
            assert await store.write(record(ticket), after=ticket.frame - 1) is Outcome.WRITTEN
            found = await store.read("front")
            assert found is not None
            assert found.frame == ticket.frame

    run(test)


def test_what_changed_while_the_connection_was_cut_is_not_missed(redis_server: Any) -> None:
    async def test() -> None:
        one = opened(RedisStore(redis_server.url, most=4, expiry=60.0))
        other = opened(RedisStore(redis_server.url, most=4, expiry=60.0))
        async with one as here, other as there, Redis.from_url(redis_server.url) as admin:
            for number in range(1, 10):
                ticket = await here.open("front")
                # Nobody hears of this: the connections that listen have just been cut.
                await admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await here.write(record(ticket), after=number - 1)
                async with asyncio.timeout(5):
                    while (found := await there.read("front")) is None or found.frame < number:
                        await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)  # it listens again, and mirrors
                await there.read("front")

    run(test)


def test_starts_without_redis() -> None:
    async def test() -> None:
        async with opened(RedisStore("redis://127.0.0.1:9/0", most=4, expiry=60.0)) as store:
            with pytest.raises(UnavailableError):
                await store.read("front")

    run(test)


def test_a_redis_that_cannot_be_used_is_told_of_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = Settings.model_validate({"redis_url": "http://user:secret-word@redis:6379"})
    with pytest.raises(SettingsError, match=r"AIRSCENE_REDIS_URL: .*redis://") as caught:
        choose_store(wrong)
    assert "secret-word" not in str(caught.value) + repr(wrong)
    right = Settings.model_validate({"redis_url": "redis://redis:6379"})
    assert isinstance(choose_store(right), RedisStore)
    assert isinstance(choose_store(Settings()), MemoryStore)
    monkeypatch.setitem(sys.modules, "service.cameras.redis_store", None)
    with pytest.raises(SettingsError, match=r"install airscene\[redis\]"):
        choose_store(right)

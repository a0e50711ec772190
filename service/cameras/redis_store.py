"""Cameras in Redis, so that several replicas of the service share them.

Every step that must not be torn apart is a script of Redis. Each replica mirrors what was read
until Redis tells of a change, so that pollers cost Redis nothing; without a connection the mirror
is not trusted, and the store is unavailable until Redis is back.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.cameras.store import FullError, Outcome, Record, Signals, Ticket, UnavailableError
from service.problems import logger

PREFIX = "airscene:"
INDEX = f"{PREFIX}cameras"  # sorted set: camera -> when it was last used, ms
CHANNEL = f"{PREFIX}changes"  # carries the name of each camera that changed

CONNECTIONS = 32
TIMEOUT = 2.0  # s, for one command
PING = 2.0  # s of silence after which the connection is tried
RETRY = 0.5  # s between attempts to connect again

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: index, camera. ARGV: name, most, expiry ms, epoch of a new camera.
_OPEN = f"""{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], now, ARGV[1])
elseif redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return false
end
redis.call('HSETNX', KEYS[2], 'epoch', ARGV[4])
local frame = redis.call('HINCRBY', KEYS[2], 'arrivals', 1)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {{redis.call('HGET', KEYS[2], 'epoch'), frame}}
"""

# KEYS: index, camera. ARGV: name, most, expiry ms, epoch, frame, frame to follow, record, channel.
_WRITE = f"""{_NOW}
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[4] then return 'gone' end
local last = tonumber(redis.call('HGET', KEYS[2], 'frame') or '0')
if last >= tonumber(ARGV[5]) then return 'overtaken' end
if last ~= tonumber(ARGV[6]) then return 'changed' end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
if not redis.call('ZSCORE', KEYS[1], ARGV[1])
    and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return false
end
redis.call('HSET', KEYS[2], 'frame', ARGV[5], 'record', ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PUBLISH', ARGV[8], ARGV[1])
return 'written'
"""

# KEYS: index, camera. ARGV: name, channel.
_DELETE = """
redis.call('DEL', KEYS[2])
local known = redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[1])
return known
"""


class _Mirrored(NamedTuple):
    record: Record
    until: float  # s of `time.monotonic`, when the camera expires


@dataclass
class _Fetch:
    """A camera that is being fetched, by one of those who wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    outdated: bool = False  # the camera changed since


class RedisStore:
    """Kept by Redis 6 or newer (or Valkey), and shared by all who use the same one.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with user, password and database.
        most: cameras at once.
        expiry: s without a frame, after which a camera is forgotten.
    """

    def __init__(self, url: str, *, most: int, expiry: float) -> None:
        self._most, self._expiry = most, int(1e3 * expiry)
        pool: Any = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            # Once more at once, on a fresh connection: one that had been idle may be dead.
            retry=Retry(NoBackoff(), 1),
        )
        self._redis: Any = Redis.from_pool(pool)
        self._open = self._redis.register_script(_OPEN)
        self._write = self._redis.register_script(_WRITE)
        self._delete = self._redis.register_script(_DELETE)
        self.signals = Signals()
        self._mirror: dict[str, _Mirrored] = {}
        self._fetches: dict[str, _Fetch] = {}
        self._listening = False
        self._listener: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to listen to changes, now or as soon as Redis is there."""
        self._listener = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Closes all connections."""
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
        self.signals.everything_changed()
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    async def open(self, name: str) -> Ticket:
        """See `Store`."""
        async with _reached():
            found = await self._open(
                keys=[INDEX, _key(name)],
                args=[name, self._most, self._expiry, uuid.uuid4().hex[:8]],
            )
        if found is None:
            raise FullError
        return Ticket(name, found[0].decode(), int(found[1]))

    async def read(self, name: str) -> Record | None:
        """See `Store`."""
        mirrored = self._mirrored(name)
        if mirrored is not None:
            return mirrored
        async with self._alone(name) as fetch:  # when many wake at once, one asks for all
            mirrored = self._mirrored(name)
            if mirrored is not None:
                return mirrored
            fetch.outdated = False
            record, until = await self._fetch(name)
            if record is not None and self._listening and not fetch.outdated:
                self._mirror[name] = _Mirrored(record, until)
            return record

    async def latest(self, name: str) -> Record | None:
        """See `Store`."""
        return (await self._fetch(name))[0]

    async def write(self, record: Record, *, after: int) -> Outcome:
        """See `Store`."""
        async with _reached():
            outcome = await self._write(
                keys=[INDEX, _key(record.name)],
                args=[
                    *(record.name, self._most, self._expiry, record.epoch, record.frame, after),
                    *(record.model_dump_json(), CHANNEL),
                ],
            )
        if outcome is None:
            raise FullError
        self._changed(record.name)
        return Outcome(outcome.decode())

    async def delete(self, name: str) -> bool:
        """See `Store`."""
        async with _reached():
            known = await self._delete(keys=[INDEX, _key(name)], args=[name, CHANNEL])
        self._changed(name)
        return bool(known)

    async def all(self) -> list[Record]:
        """See `Store`."""
        async with _reached():
            names = sorted(await self._redis.zrange(INDEX, 0, -1))
            async with self._redis.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.hget(_key(name.decode()), "record")
                contents = await pipeline.execute()
        # One that has expired is in the index until the next frame arrives.
        return [Record.model_validate_json(content) for content in contents if content]

    async def _fetch(self, name: str) -> tuple[Record | None, float]:
        """What Redis has, and when it expires, s of `time.monotonic`."""
        async with _reached(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hget(_key(name), "record")
            pipeline.pttl(_key(name))
            content, left = await pipeline.execute()
        record = None if content is None else Record.model_validate_json(content)
        return record, time.monotonic() + 1e-3 * left

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[_Fetch]:
        """Lets one at a time fetch a camera."""
        fetch = self._fetches.setdefault(name, _Fetch())
        fetch.users += 1
        try:
            async with fetch.lock:
                yield fetch
        finally:
            fetch.users -= 1
            if not fetch.users:
                del self._fetches[name]

    def _mirrored(self, name: str) -> Record | None:
        mirrored = self._mirror.get(name)
        if mirrored is None or not self._listening:
            return None
        if mirrored.until < time.monotonic():
            del self._mirror[name]
            return None
        return mirrored.record

    def _changed(self, name: str) -> None:
        self._mirror.pop(name, None)
        if name in self._fetches:
            self._fetches[name].outdated = True
        self.signals.changed(name)

    def _forget(self) -> None:
        """Trusts nothing that was read before."""
        self._mirror.clear()
        for fetch in self._fetches.values():
            fetch.outdated = True
        self.signals.everything_changed()

    async def _listen(self) -> None:
        """Hears of changes until cancelled, connecting again and again."""
        lost = False
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    async for name in _messages(pubsub):
                        if name is not None:
                            self._changed(name)
                            continue
                        if lost:
                            logger.info("Redis is back")
                        # The library connects again by itself, and what was said meanwhile is lost.
                        self._forget()
                        self._listening, lost = True, False
            except (RedisError, OSError) as error:
                if not lost:
                    logger.error("Redis cannot be reached, cameras are unavailable: %s", error)
                lost = True
            finally:
                self._listening = False
                self._forget()
            await asyncio.sleep(RETRY)


async def _messages(pubsub: Any) -> AsyncIterator[str | None]:
    """Names of cameras that changed; None when it begins to be heard of them, or begins again.

    Raises:
        RedisError: the connection was lost, or is silent though it was asked to speak.
    """
    heard = time.monotonic()
    while True:
        message = await pubsub.get_message(timeout=PING)
        now = time.monotonic()
        if message is None:
            if now - heard > 3 * PING:
                raise RedisError("the connection is silent")
            await pubsub.ping()
            continue
        heard = now
        if message["type"] == "message":
            yield message["data"].decode()
        elif message["type"] == "subscribe":
            yield None


@asynccontextmanager
async def _reached() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise UnavailableError(str(error)) from error


def _key(name: str) -> str:
    return f"{PREFIX}camera:{name}"

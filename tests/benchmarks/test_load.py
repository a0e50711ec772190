"""The clients ask what they are told to, and count what comes back."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from benchmarks.load import Crowd, Load, Result, send

Answer = Callable[[bytes, int], bytes]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """A server that answers the n-th request with what `answer` makes of it; empty: not at all."""
    asked = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, _, length = head.partition(b"Content-Length: ")
                body = await reader.readexactly(int(length.split(b"\r")[0]) if length else 0)
                asked += 1
                said = answer(head + body, asked)
                if not said:
                    break
                writer.write(said)
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/path?a=1"


def ok(request: bytes, n: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"


def run(answer: Answer, make: Callable[[str], Load]) -> Result:
    async def scenario() -> Result:
        async with serving(answer) as url:
            return await Crowd(make(url)).run()

    scenario_: Awaitable[Result] = scenario()
    return asyncio.run(asyncio.wait_for(scenario_, 60))


def test_so_many_requests_with_bodies_in_turns() -> None:
    seen: list[bytes] = []

    def answer(request: bytes, n: int) -> bytes:
        seen.append(request)
        return ok(request, n)

    def load(url: str) -> Load:
        return replace(Load.posting(url, [b"one", b"three"], "text/x"), clients=3, requests=10)

    result = run(answer, load)
    assert result.statuses == {"200": 10}
    assert len(result.latencies["200"]) == 10 and min(result.latencies["200"]) > 0
    assert result.rate == pytest.approx(10 / result.seconds)
    assert all(request.startswith(b"POST /path?a=1 HTTP/1.1\r\nHost: 127.") for request in seen)
    assert all(b"\r\nContent-Type: text/x\r\n" in request for request in seen)
    assert sorted(request.partition(b"\r\n\r\n")[2] for request in seen) == 5 * [b"one"] + 5 * [
        b"three"
    ]


def test_statuses_and_what_is_lost() -> None:
    answers = {
        1: b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n",
        2: b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
        3: b"",
    }
    result = run(
        lambda request, n: answers.get(n, ok(request, n)), lambda url: Load(url, requests=6)
    )
    assert result.statuses == {"304": 1, "503": 1, "lost": 1, "200": 3}
    assert result.unlike("200", "304") == 2
    assert result.quantile(0.5, "503") > 0
    assert result.quantile(0.5, "404") != result.quantile(0.5, "404")  # there is none


def test_an_answer_in_pieces() -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000)
    assert run(lambda *_: long, lambda url: Load(url, requests=3)).statuses == {"200": 3}


def test_at_a_rate_and_for_a_time() -> None:
    result = run(ok, lambda url: Load(url, clients=8, seconds=0.5, rate=100.0))
    # As many as are due, however fast the answers; fewer where the machine is busy.
    assert 1 <= result.statuses["200"] <= 60
    assert 0.5 <= result.seconds < 30


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    result = asyncio.run(Crowd(Load(url, seconds=0.2)).run())
    assert result.statuses == {} and result.rate == 0
    began = time.monotonic()
    asyncio.run(Crowd(Load(url, seconds=60.0, until_refused=True)).run())
    assert time.monotonic() - began < 30


def test_in_a_process_of_its_own() -> None:
    async def scenario() -> Result:
        async with serving(ok) as url:
            return await asyncio.to_thread(send, Load(url, requests=5))

    result = asyncio.run(scenario())
    assert result.statuses == {"200": 5}
    assert result.cpu_seconds > 0

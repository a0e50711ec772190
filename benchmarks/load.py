"""Clients that ask a server over HTTP without a pause: a process of its own, as light as can be.

`python -m benchmarks.load` reads one `Load` as JSON from standard input and prints one `Result`.
On two cores the clients take time from the server that they measure. So they write a request that
was made up before, read no more of an answer than its status and length, and count what they cost.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field, replace
from typing import cast
from urllib.parse import urlsplit

HEADER_END = b"\r\n\r\n"
PATIENCE = 60.0  # s, after the end, for answers that have not come
TICK = 0.005  # s, between two looks at whether a request is due


@dataclass(frozen=True)
class Load:
    """What to send, how often at once, and for how long."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    bodies: list[str] = field(default_factory=list)
    """In base64; the requests take turns with them."""
    clients: int = 1
    seconds: float = 5.0
    requests: int | None = None
    """Ends after so many, if that is sooner."""
    until_refused: bool = False
    """Ends as soon as the server listens no more."""
    rate: float | None = None
    """Requests a second of all clients together, whether or not there are answers; without it, each
    client asks again as soon as it has its answer."""

    @staticmethod
    def posting(url: str, bodies: list[bytes], media: str) -> Load:
        """POST of bodies of that type."""
        return Load(
            url, "POST", {"Content-Type": media}, [b64encode(body).decode() for body in bodies]
        )

    def of(self, clients: int, seconds: float) -> Load:
        """The same by so many clients, for so long."""
        return replace(self, clients=clients, seconds=seconds)

    def messages(self) -> list[bytes]:
        """The requests as they are written."""
        parts = urlsplit(self.url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        made = []
        for body in map(b64decode, self.bodies or [""]):
            lines = [f"{self.method} {path or '/'} HTTP/1.1", f"Host: {parts.netloc}"]
            lines += [f"{name}: {value}" for name, value in self.headers.items()]
            if self.method not in ("GET", "HEAD"):
                lines.append(f"Content-Length: {len(body)}")
            made.append("\r\n".join(lines).encode() + HEADER_END + body)
        return made


@dataclass
class Result:
    """What came back."""

    seconds: float = 0.0
    """From the first request to the last answer."""
    cpu_seconds: float = 0.0
    """That the clients themselves took."""
    statuses: dict[str, int] = field(default_factory=dict)
    """How often each status came; `lost` counts requests without an answer."""
    latencies: dict[str, list[float]] = field(default_factory=dict)
    """s from a request to its answer's end, by status."""

    @property
    def rate(self) -> float:
        """Answers with status 200 or 304 per second."""
        good = self.statuses.get("200", 0) + self.statuses.get("304", 0)
        return good / self.seconds

    def quantile(self, share: float, status: str = "200") -> float:
        """s, within which such a share of the answers with that status came; NaN without any."""
        values = sorted(self.latencies.get(status, []))
        return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")

    def unlike(self, *expected: str) -> int:
        """Answers with any other status, and requests without an answer."""
        return sum(n for status, n in self.statuses.items() if status not in expected)


class Client(asyncio.Protocol):
    """One connection at a time, one request at a time."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._left = 0  # bytes of the answer that are still to come; in its header when 0
        self._head = b""
        self._sent = 0.0
        self._status = ""
        self.waits = False  # for an answer
        self._closes = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks at once, or when its time has come."""
        # Uvloop's transports are none of asyncio's by type.
        self._transport = cast(asyncio.Transport, transport)
        if self._crowd.load.rate is None:
            self.ask()
        else:
            self._crowd.idle.append(self)

    def data_received(self, data: bytes) -> None:
        """Reads on, and asks again at an answer's end."""
        if not self._left:
            self._head += data
            head, end, rest = self._head.partition(HEADER_END)
            if not end:
                return
            self._head, self._status = b"", head[9:12].decode()
            lower = head.lower()
            self._closes = b"\r\nconnection: close" in lower
            _, found, length = lower.partition(b"\r\ncontent-length:")
            self._left = (int(length.partition(b"\r\n")[0]) if found else 0) - len(rest)
        else:
            self._left -= len(data)
        if self._left <= 0:
            self._left = 0
            self.waits = False
            self._crowd.answered(self._status, time.perf_counter() - self._sent)
            if self._closes:
                self._transport.close()
            elif self._crowd.load.rate is None or self._crowd.over:
                self.ask()
            else:
                self._crowd.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Connects again, unless all is over."""
        if self.waits:
            self._crowd.lost()
        self._crowd.left(self)

    def ask(self) -> None:
        """Sends the next request."""
        message = None if self._transport.is_closing() else self._crowd.next()
        if message is None:
            self._transport.close()
            return
        self.waits, self._sent = True, time.perf_counter()
        self._transport.write(message)


class Crowd:
    """All clients of one load."""

    def __init__(self, load: Load) -> None:
        self.load, self.result = load, Result()
        self._messages = load.messages()
        self._asked = 0
        self._here: set[Client] = set()
        self._connecting = 0
        self.idle: list[Client] = []  # that have their answers, where requests come at a rate

    async def run(self) -> Result:
        """Sends the load."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._done: asyncio.Future[None] = loop.create_future()
        began, cpu = time.perf_counter(), time.process_time()
        self._end = began + self.load.seconds
        for _ in range(self.load.clients):
            self._connect()
        if self.load.rate is not None:
            self._pacing = loop.create_task(self._pace(self.load.rate))
        try:
            await asyncio.wait_for(self._done, self.load.seconds + PATIENCE)
        except TimeoutError:
            for client in self._here:
                if client.waits:
                    self.lost()
        self.result.seconds = time.perf_counter() - began
        self.result.cpu_seconds = time.process_time() - cpu
        return self.result

    def next(self) -> bytes | None:
        """The next request, unless there is to be none."""
        if self.over:
            return None
        self._asked += 1
        return self._messages[self._asked % len(self._messages)]

    def answered(self, status: str, seconds: float) -> None:
        """An answer came."""
        statuses = self.result.statuses
        statuses[status] = statuses.get(status, 0) + 1
        self.result.latencies.setdefault(status, []).append(seconds)

    def lost(self) -> None:
        """An answer will never come."""
        self.result.statuses["lost"] = self.result.statuses.get("lost", 0) + 1

    def left(self, client: Client) -> None:
        """A connection ended; there is another, unless all is over."""
        self._here.discard(client)
        if client in self.idle:
            self.idle.remove(client)
        if not self.over:
            self._connect()
        elif not self._here and not self._connecting and not self._done.done():
            self._done.set_result(None)

    async def _pace(self, rate: float) -> None:
        """Sends as many requests as are due, as far as there are clients that wait for none."""
        began = time.perf_counter()
        due = 0.0
        while not self.over:
            now = (time.perf_counter() - began) * rate
            due, ready = min(due + now, float(self.load.clients)), int(due + now)
            began = time.perf_counter()
            for _ in range(min(ready, len(self.idle))):
                due -= 1
                self.idle.pop().ask()
            await asyncio.sleep(TICK)
        for client in self.idle:
            client.ask()  # which closes it

    @property
    def over(self) -> bool:
        """Whether nothing more is to be asked."""
        enough = self.load.requests is not None and self._asked >= self.load.requests
        return enough or time.perf_counter() >= self._end

    def _connect(self) -> None:
        self._connecting += 1
        self._task = self._loop.create_task(self._open())

    async def _open(self) -> None:
        parts = urlsplit(self.load.url)
        client = Client(self)
        self._here.add(client)
        try:
            await self._loop.create_connection(lambda: client, parts.hostname, parts.port)
        except OSError:  # the server listens no more, or has too many that wait to be let in
            if self.load.until_refused:
                self._end = 0.0
            await asyncio.sleep(0.05)
            self._connecting -= 1
            self.left(client)
        else:
            self._connecting -= 1


def send(load: Load) -> Result:
    """Sends a load from a process of its own, and waits for its end."""
    return begin(load).result()


def begin(load: Load) -> Sending:
    """Sends a load from a process of its own, and does not wait."""
    return Sending(load)


class Sending:
    """A load that is under way in a process of its own.

    Args:
        load: that is sent.
    """

    def __init__(self, load: Load) -> None:
        # A file: of a pipe that nobody reads yet, the clients would wait for somebody to.
        self._written = tempfile.TemporaryFile("w+")  # noqa: SIM115 (see `result`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=self._written,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(load)))
        self._process.stdin.close()

    def result(self) -> Result:
        """What came back, once all of it has.

        Raises:
            RuntimeError: the process failed.
        """
        code = self._process.wait()
        with self._written:
            if code:
                raise RuntimeError(f"the clients ended with {code}")
            self._written.seek(0)
            return Result(**json.load(self._written))


def main() -> None:
    """Reads a load, sends it, prints what came back."""
    load = Load(**json.load(sys.stdin))
    try:
        import uvloop

        run = uvloop.run
    except ImportError:  # not on Windows
        run = asyncio.run  # type: ignore[assignment]
    print(json.dumps(asdict(run(Crowd(load).run()))))


if __name__ == "__main__":
    main()

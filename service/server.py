"""The server process: uvicorn, its end without a lost request, its reload, its slow clients."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import logs
from service.problems import Problem
from service.runtime import Runtime
from service.settings import Settings

# s, for which a connection without a request stays open. Clients that find theirs closed just as
# they send the next picture lose that picture, and few cameras wait for more than a minute.
KEEP_ALIVE = 75

# s, in which a request's header must have come, and its largest size. There is a limit of the
# body's, but that begins behind the header.
HEADER_SECONDS = 10.0
HEADER_BYTES = 64 * 2**10

# s, which a client that was let in just before the server stopped to listen may take to send its
# first request: it would otherwise find the door shut in its face. The server looks every `LOOK` s
# whether there still is such a client.
SETTLE = 5.0
LOOK = 0.1

# s, after which Python lets another thread run. An engine's thread in this process gives way at
# each of its many short operations and then waits for so long: with Python's own 5 ms, a busy event
# loop takes most of the time from it.
SWITCH = 0.0005

logger = logging.getLogger("airscene")


class Protocol(HttpToolsProtocol):
    """One connection, which must not take for ever to say what it wants."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    @property
    def expects_request(self) -> bool:
        """Whether a request has begun, or none ever came, so that to close now is to lose it."""
        return self._header_timer is not None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: the time for its first header begins."""
        super().connection_made(transport)
        self._begin_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._end_header()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what came, unless it is a header without end."""
        super().data_received(data)
        if self._header_timer is not None:
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response(f"The header has more than {HEADER_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """A request begins; on a connection that was used before, so does the time for it."""
        super().on_message_begin()
        if self._header_timer is None:
            self._begin_header()

    def on_headers_complete(self) -> None:
        """The header came in time."""
        self._end_header()
        super().on_headers_complete()

    def _begin_header(self) -> None:
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _end_header(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


class Server(uvicorn.Server):
    """Uvicorn, which on SIGTERM sends clients away before it closes, and reloads on SIGHUP.

    Args:
        app: of `service.app.create_app`.
        settings: of the service.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                server_header=False,
                access_log=False,  # `service.middleware` has its own
                log_config=logs.configuration(settings),
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=settings.drain_seconds,
            )
        )
        self._runtime: Runtime = app.state.runtime
        self._delay, self._engines = settings.drain_delay, settings.engines
        self._end: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends at once on Ctrl+C, and on a second SIGTERM; on the first, after the delay."""
        if sig == signal.SIGTERM and self.started and self._end is None:
            self._runtime.draining = True
            self._end = time.monotonic() + self._delay
        else:
            super().handle_exit(sig, frame)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until it is told to end."""
        if self._engines == 1:
            sys.setswitchinterval(SWITCH)
        # What has been imported stays. Looking through it for garbage, time and again, took a tenth
        # of what requests take of this process.
        gc.collect()
        gc.freeze()
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, and to hear SIGHUP where there is one."""
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now."""
        if self._end is not None and time.monotonic() >= self._end:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets in nobody more, answers those who are in, and ends."""
        self._runtime.draining = True
        # To close a listening socket resets the connections that the kernel has accepted and the
        # event loop has not: those clients believe that they are in.
        waiting = [line for listener in sockets or [] for line in _accepted(listener)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for line in waiting:
            await loop.connect_accepted_socket(self._connection, line)
        deadline = loop.time() + SETTLE
        await asyncio.sleep(LOOK)  # until the last to be let in have a connection
        while loop.time() < deadline and any(
            isinstance(connection, Protocol) and connection.expects_request
            for connection in self.server_state.connections
        ):
            await asyncio.sleep(LOOK)
        await super().shutdown(sockets)

    def _connection(self) -> Protocol:
        return Protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _reload(self) -> None:
        self._reloading = asyncio.create_task(self._try_to_reload())

    async def _try_to_reload(self) -> None:
        try:
            await self._runtime.reload()
        except Problem as problem:
            logger.error("SIGHUP: %s", problem.detail)


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """Connections that wait to be accepted."""
    while True:
        try:
            line, _ = listener.accept()
        except OSError:  # none is left, or the socket was closed
            return
        line.setblocking(False)
        yield line

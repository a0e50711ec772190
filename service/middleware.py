"""What surrounds every request: its id, its line in the log, and how it ends when it fails."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.access import ADMIN
from service.openapi import CONTENT_POLICY
from service.problems import INTERNAL, Problem, logger, respond
from service.runtime import Runtime

HEADER = "X-Request-ID"

# What may stand in a log line or a header without harm; anything else is replaced by our own id.
ACCEPTED = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

# For browsers. What a page of ours needs beyond this it says in headers of its own.
SECURITY = {
    b"content-security-policy": CONTENT_POLICY.encode(),
    b"cross-origin-opener-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}

# s, after which a request that found no room is told so. A client that asks again as soon as it was
# refused would otherwise be refused thousands of times a second, at the cost of all who wait.
PAUSE = 0.05

GONE = 499  # the client went away: nobody gets this status, but the log and the metrics
NO_ROUTE = "none"

access = logging.getLogger("airscene.access")


def request_id_of(given: str | None) -> str:
    """The id that a client gave, if it is fit to be repeated, or a new one."""
    return given if given is not None and ACCEPTED.fullmatch(given) else uuid.uuid4().hex


class RequestContext:
    """Gives each request its id, in `request.state.request_id` and in the response's header.

    It also counts and logs each request, and adds the headers that every answer has.

    Args:
        app: what follows.
        runtime: whose metrics count, and which knows when the server is about to end.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime) -> None:
        self.app, self.runtime = app, runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request (or the application's lifespan)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = request_id_of(Headers(scope=scope).get(HEADER))
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        logs.request_id.set(request_id)
        status = GONE

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = list(message["headers"])
                headers.append((b"x-request-id", request_id.encode()))
                given = {name for name, _ in headers}
                headers += [item for item in SECURITY.items() if item[0] not in given]
                if self.runtime.draining and b"connection" not in given:
                    headers.append((b"connection", b"close"))
            await send(message)

        try:
            await self.app(scope, receive, send_more)
        except ClientDisconnect:
            status = GONE
        finally:
            self._tell(scope, state, status, time.perf_counter() - began)

    def _tell(self, scope: Scope, state: dict[str, Any], status: int, seconds: float) -> None:
        # The route's pattern: addresses themselves would make a metric each.
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        self.runtime.metrics.answered(route, scope["method"], status, seconds)
        problem = state.get("problem")
        if problem is not None:
            self.runtime.metrics.rejected.labels(problem).inc()
        if access.isEnabledFor(logging.INFO):
            fields = {
                "client": state.get("client", ""),
                "method": scope["method"],
                # As it came: what is decoded may hold line ends.
                "path": scope.get("raw_path", b"").decode("ascii", "replace"),
                "status": status,
                "milliseconds": round(1e3 * seconds, 2),
            } | ({} if problem is None else {"problem": problem})
            access.info(
                "%s %s %s in %.1f ms%s",
                *(fields["method"], fields["path"], status, 1e3 * seconds),
                f" ({problem})" if problem else "",
                extra=fields,
            )


def free(scope: Scope) -> bool:
    """Whether a request brings nothing that would lie in memory or wait for the engine."""
    return scope["method"] in ("GET", "HEAD", "OPTIONS") or bool(ADMIN.fullmatch(scope["path"]))


class Unexpected:
    """Turns unexpected exceptions into a problem document that says nothing of the inside.

    The log says everything, under the same id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request (or the application's lifespan)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:
            raise
        except Exception:
            logger.exception("request %s failed", scope["state"]["request_id"])
            if started:  # too late for another answer: let the server cut the connection
                raise
            detail = (
                "An unexpected error; the server's log tells more under this request_id. "
                "The same request may fail again."
            )
            await respond(Request(scope), Problem(INTERNAL, detail))(scope, receive, send)


class Uploads:
    """Takes so many requests with bodies at once and no more: their bodies lie in memory.

    It stands before everything that costs time: when there are far too many requests, most of
    the work is to refuse them.

    Args:
        app: what follows.
        runtime: that says whether there is room.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime) -> None:
        self.app, self.runtime = app, runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on, or refuses it at once."""
        if scope["type"] != "http" or free(scope):
            await self.app(scope, receive, send)
            return
        try:
            with self.runtime.upload():
                await self.app(scope, receive, send)
        except Problem as problem:
            await asyncio.sleep(PAUSE)
            await respond(Request(scope), problem)(scope, receive, send)

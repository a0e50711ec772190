"""What surrounds every request: its id, and the answer to what nobody expected."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import INTERNAL, Problem, logger, respond

HEADER = "X-Request-ID"

# What may stand in a log line or a header without harm; anything else is replaced by our own id.
ACCEPTED = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id_of(given: str | None) -> str:
    """The id that a client gave, if it is fit to be repeated, or a new one."""
    return given if given is not None and ACCEPTED.fullmatch(given) else uuid.uuid4().hex


class RequestContext:
    """Gives each request its id, in `request.state.request_id` and in the response's header.

    It also turns unexpected exceptions into a problem document that says nothing of the inside;
    the log says everything, under the same id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request (or the application's lifespan)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(Headers(scope=scope).get(HEADER))
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            logger.info("request %s: the client went away", request_id)
        except Exception:
            logger.exception("request %s failed", request_id)
            if started:  # too late for another answer: let the server cut the connection
                raise
            detail = (
                "An unexpected error; the server's log tells more under this request_id. "
                "The same request may fail again."
            )
            response = respond(Request(scope), Problem(INTERNAL, detail))
            await response(scope, receive, send_with_id)

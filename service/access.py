"""Who may ask, and how often: API keys and rates, before anything of a request is read."""

from __future__ import annotations

import math
import re

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.keys import Client, Keys
from service.problems import ADMIN_OFF, FORBIDDEN, RATE, UNAUTHORISED, Problem, respond
from service.rates import Buckets, network_of

# What anybody may read: whether the server lives, and how it is used. Everything else, routes that
# are yet to be written too, needs a key where there are keys.
OPEN = re.compile(r"(/v1)?/(healthz|readyz)|/|/docs|/openapi\.json|/static/.*")
# What is asked for every few seconds by whoever watches the server.
WATCHED = re.compile(r"(/v1)?/(healthz|readyz|metrics)")
ADMIN = re.compile(r"(/v1)?/admin(/.*)?")

HOW = "send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`"


class Access:
    """Lets requests through that bring a known key and do not come too often.

    Args:
        app: what follows.
        keys: that are known; with none, everybody may ask, but for `/admin/`.
        buckets: of the clients; no limit when not given.
    """

    def __init__(self, app: ASGIApp, keys: Keys, buckets: Buckets | None) -> None:
        self.app, self.keys, self.buckets = app, keys, buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request with a problem, or hands it on."""
        if scope["type"] == "http" and not OPEN.fullmatch(scope["path"]):
            try:
                self._check(scope)
            except Problem as problem:
                await respond(Request(scope), problem)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        address = scope.get("client")
        unknown = Client(network_of(address[0]) if address else "unknown")
        found = self.keys.find(Headers(scope=scope)) if self.keys else None
        client = found or unknown
        scope["state"]["client"] = client.name
        # Who guesses keys is slowed down like everybody, by the address.
        seconds = self.buckets.take(client.name) if self.buckets else 0.0
        if seconds:
            raise Problem(
                RATE,
                f"The next request of {client.name} is taken in {seconds:.1f} seconds.",
                {"Retry-After": str(math.ceil(seconds))},
            )
        if self.keys and found is None:
            raise Problem(
                UNAUTHORISED,
                f"The request brings no key that is known here; {HOW}.",
                {"WWW-Authenticate": "Bearer"},
            )
        if ADMIN.fullmatch(scope["path"]) and not client.admin:
            if not self.keys.admins:
                raise Problem(
                    ADMIN_OFF,
                    "No admin key is configured; give the server one by AIRSCENE_ADMIN_KEY_FILE, "
                    "or send its process SIGHUP to reload the model.",
                )
            raise Problem(FORBIDDEN, f"This needs an admin's key; {HOW}.")

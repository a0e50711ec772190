"""Noticing that a client has gone, so that nobody works for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


async def connected(request: Request, work: Awaitable[T]) -> T:
    """Waits for some work; cancels it as soon as the client is gone.

    Args:
        request: whose body was read.
        work: to wait for.

    Raises:
        ClientDisconnect: nobody waits for the answer any more.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

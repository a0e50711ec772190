"""What a route may ask for by the type of an argument."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from service.runtime import Runtime


async def runtime_of(request: Request) -> Runtime:
    """The runtime of the application that answers."""
    runtime: Runtime = request.app.state.runtime
    return runtime


Serving = Annotated[Runtime, Depends(runtime_of)]

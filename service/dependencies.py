"""What a route may ask for by the type of an argument."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from service.cameras.live import Cameras
from service.drawing import Artist
from service.runtime import Runtime


async def runtime_of(request: Request) -> Runtime:
    """The runtime of the application that answers."""
    runtime: Runtime = request.app.state.runtime
    return runtime


async def cameras_of(request: Request) -> Cameras:
    """The cameras of the application that answers."""
    cameras: Cameras = request.app.state.cameras
    return cameras


async def artist_of(request: Request) -> Artist:
    """Who draws for the application that answers."""
    artist: Artist = request.app.state.artist
    return artist


Drawing = Annotated[Artist, Depends(artist_of)]
Watching = Annotated[Cameras, Depends(cameras_of)]
Serving = Annotated[Runtime, Depends(runtime_of)]

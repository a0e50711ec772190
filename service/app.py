"""The HTTP application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from inference.checkpoint import code_version
from service import openapi, problems
from service.cameras.choice import choose_store
from service.cameras.live import Cameras
from service.drawing import Artist
from service.engine import Engine
from service.middleware import RequestContext
from service.routes import ROUTERS
from service.runtime import Infers, Runtime
from service.schemas import ImageUpload, SceneDescription
from service.settings import Settings

STATIC = Path(__file__).parent / "static"


def create_app(settings: Settings, *, load: Callable[[], Infers] | None = None) -> FastAPI:
    """The application.

    Args:
        settings: of the service.
        load: makes the engine, on the thread where it will be used; from `settings.checkpoint`
            when not given.
    """
    runtime = Runtime(
        settings, load or partial(Engine, settings.checkpoint, threads=settings.threads)
    )

    cameras = Cameras(
        choose_store(settings),
        most_waiting=settings.max_waiting,
        ending=lambda: runtime.draining,
    )

    artist = Artist(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await runtime.start()
        await cameras.store.start()
        try:
            yield
        finally:
            await cameras.store.stop()
            await artist.stop()
            await runtime.stop()

    app = FastAPI(
        title="airscene",
        description=openapi.DESCRIPTION,
        version=code_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a POST that is sent on loses its picture with many clients
    )
    app.state.runtime = runtime
    app.state.cameras = cameras
    app.state.artist = artist
    app.add_middleware(RequestContext)
    problems.install(app)
    openapi.install(app, ImageUpload, SceneDescription)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
        app.include_router(router, include_in_schema=False)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return openapi.docs_page(app.title)

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("docs")

    return app

"""The HTTP application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from inference.checkpoint import Checkpoint, code_version
from inference.checkpoint2d import Checkpoint2d
from service import openapi, problems, telemetry
from service.access import Access
from service.assets import ASSETS
from service.cameras.choice import choose_store
from service.cameras.live import Cameras
from service.drawing import Artist
from service.keys import load_keys
from service.lane import Infers
from service.middleware import HEADER, RequestContext, Unexpected, Uploads
from service.models import Models
from service.rates import Buckets
from service.routes import GLIMPSE_ROUTERS, PAGES, ROUTERS
from service.runtime import Runtime
from service.schemas import ImagesUpload, ImageUpload
from service.settings import Settings


def create_app(
    settings: Settings,
    *,
    loaded: Checkpoint | Checkpoint2d | None = None,
    load: Callable[[], Infers] | None = None,
) -> FastAPI:
    """The application.

    Args:
        settings: of the service.
        loaded: what `settings.checkpoint` holds, when it was loaded already; a 2D model must be.
        load: makes the only engine, on the thread where it will be used; when not given, there are
            `settings.engines`, of `settings.checkpoint` as it then is.

    Raises:
        SettingsError: the API keys or the store of the cameras cannot be used, or OpenTelemetry is
            missing.
    """
    keys = load_keys(settings)
    buckets = Buckets(settings.rate, settings.rate_burst) if settings.rate else None
    # A 2D model has routes of its own: a reload does not turn one kind of model into the other.
    flat = isinstance(loaded, Checkpoint2d)
    if load is None:
        runtime = Runtime(settings, Models(settings, loaded).engines, settings.engines)
    else:
        runtime = Runtime(settings, lambda: load, 1)
    artist = Artist(settings)
    cameras = Cameras(
        choose_store(settings),
        most_waiting=settings.max_waiting,
        ending=lambda: runtime.draining,
    )

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
        telemetry=telemetry.configuration(settings),
        redirect_slashes=False,  # a POST that is sent on loses its picture with many clients
    )
    app.state.runtime, app.state.cameras, app.state.artist = runtime, cameras, artist
    # The last one added is the first that sees a request.
    app.add_middleware(Uploads, runtime=runtime)
    app.add_middleware(Access, keys=keys, buckets=buckets)
    app.add_middleware(Unexpected)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[origin.strip() for origin in settings.cors_origins.split(",")],
            allow_methods=["DELETE", "GET", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match", "X-API-Key", HEADER],
            expose_headers=["ETag", HEADER, "Retry-After", "Scene-Age"],
        )
    app.add_middleware(RequestContext, runtime=runtime)
    problems.install(app)
    openapi.install(app, ImageUpload, ImagesUpload, keys=bool(keys))
    app.mount("/static", ASSETS, name="static")

    for router in GLIMPSE_ROUTERS if flat else ROUTERS:
        app.include_router(router, prefix="/v1", responses=openapi.COMMON)
        app.include_router(router, include_in_schema=False)
    for router in PAGES:
        app.include_router(router)
    return app

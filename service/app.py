"""The HTTP application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from inference.checkpoint import code_version
from service import openapi, problems
from service.answers import compose, describe, now
from service.engine import Engine
from service.middleware import RequestContext
from service.runtime import Infers, Runtime
from service.schemas import ImageUpload, InferResponse, ModelReport, Status
from service.settings import Settings
from service.uploads import read_image

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

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await runtime.start()
        try:
            yield
        finally:
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
    app.add_middleware(RequestContext)
    problems.install(app)
    openapi.install(app, ImageUpload)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.post(
        "/infer",
        openapi_extra=openapi.INFER,
        responses=openapi.problems(400, 413, 415, 422, 500, 503),
        tags=["inference"],
    )
    async def infer(request: Request) -> InferResponse:
        """What stands on the table in this picture."""
        runtime.check_ready()
        stamp = now()
        data = await read_image(request, settings.max_bytes)
        picture = await runtime.decode(data)
        return compose(
            runtime.engine.checkpoint,
            await runtime.infer(picture),
            request_id=request.state.request_id,
            stamp=stamp,
        )

    @app.get("/model", tags=["inference"])
    async def model() -> ModelReport:
        """The model that answers: its objects, the camera that it expects, how well it works."""
        return describe(runtime.engine.checkpoint)

    @app.get("/healthz", tags=["health"])
    async def healthz() -> Status:
        """The process lives."""
        return Status(status="ok")

    @app.get("/readyz", responses=openapi.problems(503), tags=["health"])
    async def readyz() -> Status:
        """The model is loaded and has inferred once."""
        runtime.check_ready()
        return Status(status="ready")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return openapi.docs_page(app.title)

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("docs")

    return app

"""The routes, one idea a file; the application mounts all of them at `/v1` and at `/`."""

from service.routes import cameras, health, infer, meshes, model, render

ROUTERS = (
    *(infer.router, render.router, model.router, meshes.router),
    *(cameras.router, health.router),
)

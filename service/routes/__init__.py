"""The routes, one idea a file; the application mounts all of them at `/v1` and at `/`."""

from service.routes import health, infer, model

ROUTERS = (infer.router, model.router, health.router)
